// The identity provider of the end-to-end tests: npm oidc-provider, which nobody here wrote, with its own development
// sign-in pages (any password). Settings come as one JSON object in PROVIDER; what happens at the token endpoint goes to
// standard output, one JSON object a line, tokens included: they live as long as one test.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { Provider } from 'oidc-provider';

const settings = {
  port: 9000,
  client_id: 'wiki',
  client_secret: 'secret',
  origin: 'http://127.0.0.1:4180', // Postern's public origin
  access_token_ttl: 60, // seconds
  token_delay: 0, // milliseconds from a token's issue to its answer
  backchannel_logout_uri: undefined, // where it tells of sign-outs
  claims_in_id_token: true, // false: only userinfo has them, as OpenID Connect Core 5.4 prefers
  ...JSON.parse(process.env.PROVIDER ?? '{}'),
};

const people = {
  alice: {
    email: 'alice@people.example',
    email_verified: true,
    name: 'Alice Liddell',
    preferred_username: 'alice',
    groups: ['wiki-users', 'staff'],
  },
  bob: {
    email: 'bob@people.example',
    email_verified: true,
    name: 'Bob Gray',
    preferred_username: 'bob',
    groups: ['visitors'],
  },
  carol: { // her ID token is longer than an address may be
    email: 'carol@people.example',
    email_verified: true,
    name: 'Carol Long',
    preferred_username: 'carol',
    groups: Array.from({ length: 120 }, (_, i) => `department-${i}-of-the-whole-company`),
  },
};

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const provider = new Provider(`http://localhost:${settings.port}`, {
  clients: [{
    client_id: settings.client_id,
    client_secret: settings.client_secret,
    token_endpoint_auth_method: 'client_secret_basic',
    grant_types: ['authorization_code', 'refresh_token'],
    redirect_uris: [`${settings.origin}/oauth2/callback`],
    post_logout_redirect_uris: [`${settings.origin}/oauth2/logout/callback`],
    ...(settings.backchannel_logout_uri && {
      backchannel_logout_uri: settings.backchannel_logout_uri,
      backchannel_logout_session_required: true,
    }),
  }],
  claims: {
    openid: ['sub'],
    email: ['email', 'email_verified'],
    profile: ['name', 'preferred_username', 'groups'],
  },
  conformIdTokenClaims: !settings.claims_in_id_token,
  cookies: { keys: [randomBytes(32).toString('hex')] },
  features: { backchannelLogout: { enabled: true } },
  fetch: (url, { dispatcher, ...options }) => fetch(url, options), // its own refuses loopback addresses, and Postern is at one
  findAccount: (ctx, id) => people[id] && { accountId: id, claims: () => ({ sub: id, ...people[id] }) },
  issueRefreshToken: (ctx, client) => client.grantTypeAllowed('refresh_token'),
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256' }] },
  pkce: { required: () => true },
  rotateRefreshToken: true, // a token that comes twice revokes the whole grant
  ttl: {
    AccessToken: settings.access_token_ttl,
    Grant: 3600,
    IdToken: 600,
    Interaction: 600,
    RefreshToken: 3600,
    Session: 3600,
  },
});

provider.on('backchannel.error', (ctx, err) => console.log(`sign-out not told: ${err.message} ${err.cause ?? ''}`));

provider.use(async (ctx, next) => {
  await next();
  if (ctx.path !== '/token') return;
  const answer = ctx.body ?? {};
  console.log(JSON.stringify({
    event: 'token',
    grant: ctx.oidc?.params?.grant_type ?? '',
    status: ctx.status,
    error: answer.error ?? '',
    description: answer.error_description ?? '',
    access_token: answer.access_token ?? '',
    refresh_token: answer.refresh_token ?? '',
    id_token: answer.id_token ?? '',
  }));
  await sleep(settings.token_delay);
});

provider.listen(settings.port, '127.0.0.1', () => console.log(JSON.stringify({ event: 'listening' })));
