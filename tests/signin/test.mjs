// Signs in as a browser would, and as an attacker would. See `run`.
import { spawn, execFileSync } from "node:child_process";
import { createServer } from "node:net";
import { once } from "node:events";
import { appendFileSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from "node:fs";
import { newKey, sign, start } from "./provider.mjs";

const work = process.argv[2];
const PID = "25922947409";
const CPR = "6101010000";
let passed = 0;
let failed = 0;

async function check(what, test) {
  try {
    await test();
    passed += 1;
    console.log(`ok      ${what}`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${what}\n        ${String(error.stack ?? error).replaceAll("\n", "\n        ")}`);
  }
}

function equal(got, expected, about = "") {
  if (got !== expected) throw new Error(`${about} expected ${expected}, got ${got}`);
}

function contains(text, part) {
  if (!text.includes(part)) throw new Error(`"${part}" is not in: ${text.slice(0, 2000)}`);
}

// Tries again for some seconds: what is tested is that it happens, and not how soon.
async function eventually(test) {
  const deadline = Date.now() + 20_000;
  for (;;) {
    try {
      return await test();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
  }
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

// A browser without scripts: keeps cookies for each server, and follows redirects only when told to.
class Browser {
  cookies = new Map();

  jar(url) {
    const { host } = new URL(url);
    if (!this.cookies.has(host)) this.cookies.set(host, new Map());
    return this.cookies.get(host);
  }

  async ask(url, { form, jar = this.jar(url) } = {}) {
    const cookie = [...jar].map(([name, { value }]) => `${name}=${value}`).join("; ");
    const response = await fetch(url, {
      method: form ? "POST" : "GET",
      body: form && new URLSearchParams(form),
      headers: { "accept-language": "en", ...(cookie && { cookie }) },
      redirect: "manual",
    });
    for (const set of response.headers.getSetCookie()) {
      const [pair, ...attributes] = set.split(/; */);
      const [name, ...value] = pair.split("=");
      const gone = attributes.some((one) => /^max-age=0$/i.test(one) || /^expires=thu, 01 jan 1970/i.test(one));
      if (gone) jar.delete(name);
      else jar.set(name, { value: value.join("="), attributes });
    }
    const location = response.headers.get("location");
    return {
      status: response.status,
      headers: response.headers,
      location: location && new URL(location, url).href,
      text: await response.text(),
    };
  }

  // Goes to the provider and comes back to the address that would finish the sign-in, without asking it yet.
  async untilCallback(server, id, { abort = false } = {}) {
    let at = `${server}/sign-in/${id}`;
    for (let hops = 0; hops < 10; hops += 1) {
      const answer = await this.ask(abort && at.includes("/interaction/") ? `${at}/abort` : at);
      if (!answer.location) throw new Error(`${at}: ${answer.status} ${answer.text.slice(0, 500)}`);
      at = answer.location;
      if (at.includes("/sign-in/callback")) return at;
    }
    throw new Error(`no end of redirects at ${at}`);
  }

  async signIn(server, id, options) {
    return this.ask(await this.untilCallback(server, id, options));
  }
}

function serve(port) {
  const child = spawn(process.env.SPORLOG, ["serve", "--listen", `127.0.0.1:${port}`, "--config", `${work}/sporlog.toml`], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  child.stderr.on("data", (bytes) => appendFileSync(`${work}/said-${port}`, bytes));
  return child;
}

const ports = [await freePort(), await freePort()];
const [here, there] = ports.map((port) => `http://127.0.0.1:${port}`);
const norway = await start(here);
const denmark = await start(here, { inIdToken: false });
denmark.state.account = { sub: "en anden", "dk.cpr": CPR, name: "Bo" };
const SECRET = "a secret of forty-two characters or so ....";
writeFileSync(`${work}/secret`, `${SECRET}\n`, { mode: 0o600 });
writeFileSync(`${work}/sporlog.toml`, `
store = "store"
[pages]
address = "${here}"
[[pages.provider]]
id = "norway"
label = "Norway's"
issuer = "${norway.issuer}"
client_id = "sporlog"
client_secret_file = "secret"
acr_values = ["high"]
parameters = { claims = '{"id_token":{"sid":null}}' }
[[pages.provider]]
id = "denmark"
label = "Denmark's"
issuer = "${denmark.issuer}"
client_id = "sporlog"
client_secret_env = "DENMARKS_SECRET"
acr_values = ["high"]
claim = ["pid", "dk.cpr"]
sign_out_by_get = true
`);
process.env.DENMARKS_SECRET = SECRET;
const servers = [];
process.on("exit", () => servers.forEach((server) => server.kill()));

// The failures that a sign-in can have, by what the page says.
async function refused(answer, status, says) {
  const { status: got, text, headers } = answer;
  equal(got, status, text.slice(0, 500));
  contains(text, says);
  const session = headers.getSetCookie().find((set) => set.startsWith("__Host-sporlog-session="));
  equal(session, undefined, "a session was begun");
}

async function isSignedIn(browser, server, expected = true) {
  const { status, location } = await browser.ask(`${server}/my`);
  equal(status, expected ? 200 : 303, `/my (${location})`);
}

// Signs in as a new browser, while the ID token is another one.
async function withToken(change, options) {
  norway.state.token = (token) => sign(token, change, options);
  try {
    return await new Browser().signIn(here, "norway");
  } finally {
    norway.state.token = null;
  }
}

await check("the configuration can be used, and its secrets are not printed", async () => {
  const out = execFileSync(process.env.SPORLOG, ["config", "check", "--print", "--config", `${work}/sporlog.toml`]);
  contains(String(out), "the configuration can be used");
});
servers.push(...ports.map(serve));
await eventually(async () => {
  for (const server of [here, there]) equal((await fetch(`${server}/health/ready`)).status, 200);
});

norway.state.down = true;
await check("a provider that is down", async () => {
  await refused(await new Browser().ask(`${here}/sign-in/norway`), 503, "sign-in service does not answer");
});
norway.state.down = false;

const kari = new Browser();
await check("a person signs in, as soon as the provider is there", async () => {
  const answer = await eventually(async () => {
    const answer = await kari.signIn(here, "norway");
    equal(answer.status, 303, answer.text);
    return answer;
  });
  equal(answer.location, `${here}/my`);
  await isSignedIn(kari, here);
});
await check("the cookie is for this host, over TLS, and not for scripts", async () => {
  const { value, attributes } = kari.jar(here).get("__Host-sporlog-session");
  for (const one of ["HttpOnly", "Secure", "SameSite=Lax", "Path=/"]) contains(attributes.join(";"), one);
  if (Buffer.from(value, "base64").includes(PID)) throw new Error("the number can be read");
});
await check("another instance knows the session", async () => {
  for (const [name, cookie] of kari.jar(here)) kari.jar(there).set(name, cookie);
  await isSignedIn(kari, there);
});
await check("a sign-in that one instance has begun is finished by another", async () => {
  const browser = new Browser();
  const callback = (await browser.untilCallback(here, "norway")).replace(here, there);
  equal((await browser.ask(callback, { jar: browser.jar(here) })).status, 303);
  await isSignedIn(browser, here);
});
await check("a second provider, which tells the number in its user info", async () => {
  const browser = new Browser();
  const answer = await browser.signIn(here, "denmark");
  equal(answer.location, `${here}/my`, answer.text);
  await isSignedIn(browser, here);
});
await check("the front page has a button for each", async () => {
  const { text } = await new Browser().ask(`${here}/`);
  for (const id of ["norway", "denmark"]) contains(text, `href="/sign-in/${id}"`);
});
await check("a provider that is not configured", async () => {
  equal((await new Browser().ask(`${here}/sign-in/sweden`)).status, 404);
  equal((await new Browser().ask(`${here}/sign-in/demo`)).status, 404);
});

await check("a wrong audience", async () => {
  await refused(await withToken({ aud: "somebody else" }), 502, "could not be trusted");
});
await check("a second audience", async () => {
  await refused(await withToken({ aud: ["sporlog", "somebody else"] }), 502, "could not be trusted");
});
await check("another issuer", async () => {
  await refused(await withToken({ iss: denmark.issuer }), 502, "could not be trusted");
});
await check("a wrong nonce", async () => {
  await refused(await withToken({ nonce: "guessed" }), 502, "could not be trusted");
});
await check("no nonce", async () => {
  await refused(await withToken({ nonce: undefined }), 502, "could not be trusted");
});
await check("a clock that is an hour fast, and one that is an hour slow", async () => {
  const now = Math.floor(Date.now() / 1000);
  await refused(await withToken({ iat: now + 3600, exp: now + 7200 }), 502, "could not be trusted");
  await refused(await withToken({ iat: now - 3600, exp: now - 1800 }), 502, "could not be trusted");
  await refused(await withToken({ iat: now - 3600, exp: now + 1800 }), 502, "could not be trusted");
});
await check("a clock that is half a minute off", async () => {
  const now = Math.floor(Date.now() / 1000);
  equal((await withToken({ iat: now + 30, exp: now + 300 })).status, 303);
  equal((await withToken({ iat: now - 330, exp: now - 30 })).status, 303);
});
await check("a signature of a key that is not the provider's", async () => {
  const { secret } = await newKey("first");
  await refused(await withToken({}, { key: secret }), 502, "could not be trusted");
});
await check("a signature with the client's secret, or none", async () => {
  await refused(await withToken({}, { key: SECRET, alg: "HS256", kid: "x" }), 502, "could not be trusted");
  norway.state.token = async (token) => {
    const [, claims] = token.split(".");
    return `${Buffer.from('{"alg":"none"}').toString("base64url")}.${claims}.`;
  };
  await refused(await new Browser().signIn(here, "norway"), 502, "could not be trusted");
  norway.state.token = null;
});
await check("a rotated key is fetched", async () => {
  const { secret, shown } = await newKey("second");
  norway.state.answer = (path, text) => {
    if (path !== "/jwks") return text;
    return JSON.stringify({ keys: [...JSON.parse(text).keys, shown] });
  };
  await eventually(async () => equal((await withToken({}, { key: secret })).status, 303));
  norway.state.answer = null;
});

await check("too low a level", async () => {
  norway.state.acr = "low";
  const answer = await new Browser().signIn(here, "norway");
  norway.state.acr = "high";
  await refused(answer, 403, "more secure way");
  await refused(await withToken({ acr: undefined }), 403, "more secure way");
});
await check("somebody without a personal number, or with one that cannot be", async () => {
  for (const pid of ["25922947408", "kari", 25922947409]) {
    await refused(await withToken({ pid }), 502, "did not tell your personal number");
  }
  const { account } = norway.state;
  norway.state.account = { sub: "nobody", name: "Ola" };
  await refused(await new Browser().signIn(here, "norway"), 502, "did not tell your personal number");
  norway.state.account = account;
});
await check("somebody who breaks off", async () => {
  await refused(await new Browser().signIn(here, "norway", { abort: true }), 403, "was cancelled");
});
await check("a sign-in that another browser has begun", async () => {
  const callback = await new Browser().untilCallback(here, "norway");
  await refused(await new Browser().ask(callback), 400, "not begun in this browser");
  const other = new Browser();
  await other.untilCallback(here, "norway");
  await refused(await other.ask(callback), 400, "not begun in this browser");
});
await check("a state that is used twice", async () => {
  const browser = new Browser();
  const callback = await browser.untilCallback(here, "norway");
  const jar = new Map(browser.jar(here));
  equal((await browser.ask(callback)).status, 303);
  browser.jar(here).delete("__Host-sporlog-session");
  await refused(await browser.ask(callback), 400, "not begun in this browser");
  // With the cookie of before, it is the provider that knows the code.
  await refused(await browser.ask(callback, { jar }), 400, "sign-in took too long. Begin");
});
await check("a code that has expired", async () => {
  const browser = new Browser();
  const callback = await browser.untilCallback(here, "norway");
  await new Promise((resolve) => setTimeout(resolve, 3500));
  await refused(await browser.ask(callback), 400, "sign-in took too long. Begin");
});
await check("an answer of another issuer (RFC 9207)", async () => {
  const browser = new Browser();
  const callback = new URL(await browser.untilCallback(here, "norway"));
  callback.searchParams.set("iss", denmark.issuer);
  await refused(await browser.ask(callback.href), 502, "could not be trusted");
});
await check("a provider that goes down in the middle", async () => {
  const browser = new Browser();
  const callback = await browser.untilCallback(here, "norway");
  norway.state.down = true;
  await refused(await browser.ask(callback), 503, "sign-in service does not answer");
  norway.state.down = false;
});

const field = (text, name) => text.match(new RegExp(`name="${name}" value="([^"]*)"`))?.[1].replaceAll("&amp;", "&");
await check("signing out takes the page's own form", async () => {
  for (const form of [{}, { csrf: "guessed" }]) {
    equal((await kari.ask(`${here}/sign-out`, { form })).status, 403);
  }
  equal((await kari.ask(`${here}/sign-out`)).status, 405);
  await isSignedIn(kari, here);
});
await check("signing out ends the session here, on other instances, and at the provider", async () => {
  const { text } = await kari.ask(`${here}/my`);
  const page = await kari.ask(`${here}/sign-out`, { form: { csrf: field(text, "csrf") } });
  equal(page.status, 200, page.text);
  const { origin } = new URL(norway.issuer);
  contains(page.headers.get("content-security-policy"), `form-action ${origin}`);
  for (const [name, cookie] of kari.jar(there)) kari.jar(here).set(name, cookie);
  await isSignedIn(kari, here, false);
  await eventually(() => isSignedIn(kari, there, false));
  // The provider asks whether the person is sure.
  const action = page.text.match(/action="([^"]*)"/)[1];
  if (action.includes("?")) throw new Error(`something stands in the address: ${action}`);
  const form = Object.fromEntries(
    ["id_token_hint", "client_id", "post_logout_redirect_uri"].map((name) => [name, field(page.text, name)]),
  );
  if (!form.id_token_hint) throw new Error("there is no id_token_hint");
  const sure = await kari.ask(action, { form });
  equal(sure.status, 200, sure.text);
  const xsrf = sure.text.match(/name="xsrf" value="([^"]*)"/)[1];
  const done = await kari.ask(`${norway.issuer}/session/end/confirm`, { form: { xsrf, logout: "yes" } });
  equal(done.location, `${here}/`);
});
await check("signing out at a provider that takes no forms", async () => {
  const browser = new Browser();
  await browser.signIn(here, "denmark");
  const { text } = await browser.ask(`${here}/my`);
  const page = await browser.ask(`${here}/sign-out`, { form: { csrf: field(text, "csrf") } });
  contains(page.text, '<form method="get"');
  const query = new URLSearchParams(
    ["id_token_hint", "client_id", "post_logout_redirect_uri"].map((name) => [name, field(page.text, name)]),
  );
  const sure = await browser.ask(`${page.text.match(/action="([^"]*)"/)[1]}?${query}`);
  equal(sure.status, 200, sure.text);
  contains(sure.text, 'name="xsrf"');
  await isSignedIn(browser, here, false);
});
await check("a provider ends a session (front-channel)", async () => {
  const browser = new Browser();
  let sid;
  norway.state.token = async (token) => {
    ({ sid } = JSON.parse(Buffer.from(token.split(".")[1], "base64url")));
    return token;
  };
  await browser.signIn(here, "norway");
  norway.state.token = null;
  await isSignedIn(browser, here);
  if (!sid) throw new Error("the provider gave no sid");
  const end = (iss, sid) => fetch(`${here}/sign-out/front-channel?${new URLSearchParams({ iss, sid })}`);
  equal((await end("https://elsewhere.example", sid)).status, 400);
  equal((await end(norway.issuer, "another")).status, 200);
  await isSignedIn(browser, here);
  equal((await end(norway.issuer, sid)).status, 200);
  await isSignedIn(browser, here, false);
});
await check("no personal number, code, token or secret in the server's log", async () => {
  const said = ports.map((port) => readFileSync(`${work}/said-${port}`, "utf8")).join("");
  contains(said, "a person could not sign in");
  for (const part of [PID, CPR, SECRET, "Kari", "code=", "eyJ"]) {
    if (said.includes(part)) throw new Error(`"${part}" is in the log`);
  }
});
await check("demo people are refused beside providers, and away from this machine", async () => {
  writeFileSync(`${work}/people.toml`, `[[person]]\nname = "Kari"\npid = "${PID}"\ncountry = "no"\n`);
  mkdirSync(`${work}/elsewhere`, { recursive: true });
  const refusal = (args) => {
    try {
      const options = { stdio: ["ignore", "ignore", "pipe"], timeout: 20_000, cwd: `${work}/elsewhere` };
      execFileSync(process.env.SPORLOG, ["serve", "--demo-people", `${work}/people.toml`, ...args], options);
    } catch (error) {
      return String(error.stderr);
    }
    throw new Error("the server has started");
  };
  contains(refusal(["--config", `${work}/sporlog.toml`, "--listen", "127.0.0.1:0"]), "[[pages.provider]]");
  contains(refusal(["--listen", "0.0.0.0:0"]), "loopback");
  equal(readdirSync(`${work}/elsewhere`).length, 0, "a store was made");
});

console.log(`\n${passed} passed, ${failed} failed`);
norway.stop();
denmark.stop();
process.exit(failed === 0 ? 0 : 1);
