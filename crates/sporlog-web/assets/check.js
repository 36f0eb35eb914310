// Checks a proof of a record in the format of C2SP tlog-proof, in this browser: nothing is sent anywhere.
// The record and its salt give the leaf (SHA-256); the inclusion proof leads from the leaf to the root of
// the Merkle tree (RFC 6962); and the log's key has signed the root (Ed25519, C2SP signed-note).
"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const bytes = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const join = (...parts) => {
    const all = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
    parts.reduce((at, part) => (all.set(part, at), at + part.length), 0);
    return all;
  };
  const sha256 = async (...parts) => new Uint8Array(await crypto.subtle.digest("SHA-256", join(...parts)));
  const same = (a, b) => a.length === b.length && a.every((byte, at) => byte === b[at]);
  const utf8 = new TextEncoder();

  class Wrong extends Error {}
  const fail = (result) => { throw new Wrong(result); };

  function parse(text) {
    try {
      const [head, body, signatures] = text.split("\n\n");
      const [magic, extra, index, ...hashes] = head.split("\n");
      const [origin, size, root] = body.split("\n");
      if (magic !== "c2sp.org/tlog-proof@v1" || !extra.startsWith("extra ") || !/^index \d+$/.test(index)) fail("none");
      const proof = {
        extra: bytes(extra.slice(6)), index: BigInt(index.slice(6)), hashes: hashes.map(bytes),
        origin, size: BigInt(size), root: bytes(root), signed: utf8.encode(body + "\n"),
        signatures: signatures.split("\n").filter(Boolean).map((line) => {
          const [dash, name, signature] = line.split(" ");
          if (dash !== "—") fail("none");
          return { name, signature: bytes(signature) };
        }),
      };
      if (proof.extra.length < 16 || proof.root.length !== 32 || proof.hashes.some((h) => h.length !== 32)) fail("none");
      return proof;
    } catch {
      return fail("none");
    }
  }

  // A key is NAME+HASH+BASE64; the Base64 is of a 1 for Ed25519, and 32 bytes.
  async function parseKey(text) {
    const match = /^([^+\s]+)\+([0-9a-f]{8})\+(\S+)$/.exec(text.trim());
    if (!match) return fail("key");
    let data;
    try { data = bytes(match[3]); } catch { return fail("key"); }
    const id = (await sha256(utf8.encode(match[1] + "\n"), data)).slice(0, 4);
    const hex = Array.from(id, (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (data.length !== 33 || data[0] !== 1 || hex !== match[2]) return fail("key");
    return { name: match[1], id, raw: data.slice(1) };
  }

  async function isSigned(proof, key) {
    const ours = proof.signatures.filter((s) => s.name === key.name && same(s.signature.slice(0, 4), key.id));
    if (key.name !== proof.origin || ours.length === 0) return fail("key");
    let imported;
    try {
      imported = await crypto.subtle.importKey("raw", key.raw, { name: "Ed25519" }, false, ["verify"]);
    } catch { return fail("old"); }
    const verify = (s) => crypto.subtle.verify({ name: "Ed25519" }, imported, s.signature.slice(4), proof.signed);
    return (await Promise.all(ours.map(verify))).some(Boolean);
  }

  async function isIncluded({ extra, index, size, hashes, root }) {
    if (index >= size) return false;
    const node = (left, right) => sha256([1], left, right);
    let hash = await sha256([0], await sha256(extra));
    let [at, last] = [index, size - 1n];
    for (const other of hashes) {
      if (last === 0n) return false;
      if ((at & 1n) === 1n || at === last) {
        hash = await node(other, hash);
        while ((at & 1n) === 0n && at !== 0n) [at, last] = [at >> 1n, last >> 1n];
      } else {
        hash = await node(hash, other);
      }
      [at, last] = [at >> 1n, last >> 1n];
    }
    return last === 0n && same(hash, root);
  }

  async function check(text, keys) {
    const proof = parse(text);
    const parsed = await Promise.all(keys.map(parseKey));
    const key = parsed.find((known) => known.name === proof.origin) || fail("key");
    if (!(await isSigned(proof, key)) || !(await isIncluded(proof))) fail("bad");
    return proof;
  }

  function show(result, proof) {
    for (const element of document.querySelectorAll("[data-result]")) element.hidden = element.dataset.result !== result;
    $("facts").hidden = $("record").hidden = !proof;
    if (proof) {
      const entry = JSON.parse(new TextDecoder().decode(proof.extra.slice(16)));
      $("origin").textContent = proof.origin;
      $("id").textContent = String(proof.index + 1n);
      $("size").textContent = String(proof.size);
      $("received").textContent = entry.receivedAt;
      $("entry").textContent = JSON.stringify(entry, null, 2);
    }
    $("result").focus();
  }

  // A check that has been overtaken by a later one shows nothing.
  let newest = 0;
  async function run() {
    const file = $("file").files[0];
    if (!file) return;
    const mine = ++newest;
    const given = $("key").value.trim();
    const known = Array.from($("keys").querySelectorAll("code"), (code) => code.textContent);
    let result = "good", proof;
    try {
      if (!globalThis.crypto || !crypto.subtle) fail("old");
      const text = await file.text().catch(() => fail("none"));
      proof = await check(text, given ? [given] : known);
    } catch (error) {
      result = error instanceof Wrong ? error.message : "bad";
    }
    if (mine === newest) show(result, proof);
  }
  $("check").addEventListener("submit", (event) => { event.preventDefault(); run(); });
  $("file").addEventListener("change", run);
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) { $("file").files = event.dataTransfer.files; run(); }
  });
})();
