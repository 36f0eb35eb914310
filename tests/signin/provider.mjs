// An OpenID provider with one client, and a proxy before it that alters what it answers.
import { createServer } from "node:http";
import { once } from "node:events";
import * as jose from "jose";
import { Provider } from "oidc-provider";

const { privateKey } = await jose.generateKeyPair("RS256", { extractable: true });
const KEY = { ...(await jose.exportJWK(privateKey)), kid: "first", alg: "RS256", use: "sig" };

// Signs an ID token's claims, changed by `change`, with a key.
export async function sign(token, change, { key = KEY, alg = "RS256", kid = key.kid } = {}) {
  const claims = { ...jose.decodeJwt(token), ...change };
  for (const name of Object.keys(claims)) if (claims[name] === undefined) delete claims[name];
  const secret = alg === "HS256" ? new TextEncoder().encode(key) : await jose.importJWK(key, alg);
  return new jose.SignJWT(claims).setProtectedHeader({ alg, kid }).sign(secret);
}

export async function newKey(kid) {
  const pair = await jose.generateKeyPair("RS256", { extractable: true });
  const [secret, shown] = await Promise.all([jose.exportJWK(pair.privateKey), jose.exportJWK(pair.publicKey)]);
  return { secret: { ...secret, kid }, shown: { ...shown, kid, alg: "RS256", use: "sig" } };
}

async function listen(handler) {
  const server = createServer(handler).listen(0, "127.0.0.1");
  await once(server, "listening");
  return server;
}

// Starts a provider that signs in whoever `account` is, and knows the client at `sporlog`.
export async function start(sporlog, { inIdToken = true } = {}) {
  const state = {
    // Who signs in next, and at which level.
    account: { sub: "somebody", pid: "25922947409", name: "Kari Test" },
    acr: "high",
    // Changes the token endpoint's answer, or another answer by its path.
    token: null,
    answer: null,
    down: false,
  };
  let upstream;
  const proxy = await listen(async (request, response) => {
    if (state.down) return request.socket.destroy();
    const body = [];
    for await (const chunk of request) body.push(chunk);
    const { port } = upstream.address();
    const init = { method: request.method, headers: { ...request.headers }, redirect: "manual" };
    delete init.headers.connection;
    delete init.headers["content-length"];
    delete init.headers.host;
    init.headers["x-forwarded-host"] = request.headers.host;
    if (body.length) init.body = Buffer.concat(body);
    const answer = await fetch(`http://127.0.0.1:${port}${request.url}`, init);
    let text = await answer.text();
    const path = request.url.split("?")[0];
    if (path === "/token" && answer.ok && state.token) {
      const tokens = JSON.parse(text);
      tokens.id_token = await state.token(tokens.id_token);
      text = JSON.stringify(tokens);
    }
    if (state.answer) text = state.answer(path, text);
    response.statusCode = answer.status;
    for (const [name, value] of answer.headers) {
      if (!["content-length", "transfer-encoding", "set-cookie", "connection"].includes(name)) {
        response.setHeader(name, value);
      }
    }
    response.setHeader("set-cookie", answer.headers.getSetCookie());
    response.end(text);
  });
  const issuer = `http://127.0.0.1:${proxy.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: "sporlog",
      client_secret: "a secret of forty-two characters or so ....",
      redirect_uris: [`${sporlog}/sign-in/callback`],
      post_logout_redirect_uris: [`${sporlog}/`],
    }],
    jwks: { keys: [KEY] },
    cookies: { keys: ["cookie key"], long: { sameSite: "none" } },
    acrValues: ["low", "high"],
    claims: { acr: null, sid: null, auth_time: null, iss: null, openid: ["sub", "pid", "dk.cpr", "name"] },
    conformIdTokenClaims: !inIdToken,
    ttl: { AuthorizationCode: 2, Session: 600, Grant: 600, Interaction: 600, AccessToken: 60, IdToken: 600 },
    features: { devInteractions: { enabled: false }, claimsParameter: { enabled: true } },
    enableHttpPostMethods: inIdToken,
    interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
    findAccount: (_, id) => ({ accountId: id, claims: () => state.account }),
    async loadExistingGrant(ctx) {
      const { client, session } = ctx.oidc;
      const grant = new provider.Grant({ clientId: client.clientId, accountId: session.accountId });
      grant.addOIDCScope("openid");
      grant.addOIDCClaims(["sub", "pid", "dk.cpr", "name", "acr", "sid"]);
      await grant.save();
      return grant;
    },
  });
  provider.proxy = true;
  const handle = provider.callback();
  upstream = await listen((request, response) => {
    if (!request.url.startsWith("/interaction/")) return handle(request, response);
    const login = { accountId: state.account.sub, acr: state.acr };
    const result = request.url.endsWith("/abort")
      ? { error: "access_denied", error_description: "the person broke off" }
      : { login };
    provider.interactionFinished(request, response, result).catch((error) => response.end(String(error)));
  });
  return { ...state, state, issuer, stop: () => { proxy.close(); upstream.close(); } };
}
