// The identity provider of the end-to-end tests: npm oidc-provider, which nobody here wrote, with its own development
// sign-in pages (any password). Settings come as one JSON object in PROVIDER; what happens at the token endpoint goes to
// standard output, one JSON object a line, tokens included: they live as long as one test.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

import { Provider, interactionPolicy } from 'oidc-provider';

const settings = {
  port: 9000,
  client_id: 'wiki',
  client_secret: undefined,
  origin: 'http://127.0.0.1:4180', // Postern's public origin
  access_token_ttl: 60, // seconds
  token_delay: 0, // milliseconds from a token's issue to its answer
  backchannel_logout_uri: undefined, // where it tells of sign-outs
  claims_in_id_token: true, // false: only userinfo has them, as OpenID Connect Core 5.4 prefers
  client: {}, // further metadata of the client
  gateway: false, // sign-ins of a strength (acr_values), tokens for other audiences (RFC 8693), and JWTs for the audience api
  ...JSON.parse(process.env.PROVIDER ?? '{}'),
};

const people = {
  alice: {
    email: 'alice@people.example',
    email_verified: true,
    name: 'Alice Liddell',
    preferred_username: 'alice',
    groups: ['wiki-users', 'staff'],
    realm_access: { roles: ['erp', 'payroll'] },
    level: 3,
  },
  bob: {
    email: 'bob@people.example',
    email_verified: true,
    name: 'Bob Gray',
    preferred_username: 'bob',
    groups: ['visitors'],
    realm_access: { roles: ['erp'] },
    level: 1,
  },
  carol: { // her ID token is longer than an address may be
    email: 'carol@people.example',
    email_verified: true,
    name: 'Carol Long',
    preferred_username: 'carol',
    groups: Array.from({ length: 120 }, (_, i) => `department-${i}-of-the-whole-company`),
  },
};

const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const MFA = 'urn:example:mfa';

const policy = interactionPolicy.base();
policy.get('login').checks.add(new interactionPolicy.Check('strength', 'a stronger sign-in is wanted', ({ oidc }) => (
  oidc.params.acr_values && !oidc.params.acr_values.split(' ').includes(oidc.session.acr)
    ? interactionPolicy.Check.REQUEST_PROMPT : interactionPolicy.Check.NO_NEED_TO_PROMPT)));

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
    ...Object.fromEntries(Object.entries(settings.client).map(([name, value]) => [name, value ?? undefined])), // null takes one out
  }, ...(settings.gateway ? [{
    client_id: 'robot', client_secret: 'robot-secret', grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
  }] : [])],
  ...(settings.gateway && {
    acrValues: [MFA],
    interactions: { policy },
    extraTokenClaims: (ctx, token) => (token.kind === 'ClientCredentials' ? { preferred_username: token.clientId } : undefined),
  }),
  claims: {
    openid: ['sub'],
    email: ['email', 'email_verified'],
    profile: ['name', 'preferred_username', 'groups', 'realm_access', 'level'],
  },
  conformIdTokenClaims: !settings.claims_in_id_token,
  cookies: { keys: [randomBytes(32).toString('hex')] },
  features: {
    backchannelLogout: { enabled: true },
    ...(settings.gateway && {
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (ctx, resource) => ({ audience: resource.split(':').pop(), scope: 'orders.read', accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } } }),
      },
    }),
  },
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

if (settings.gateway) {
  // Its own sign-in form signs in as strongly as was asked for.
  const finish = provider.interactionFinished.bind(provider);
  provider.interactionFinished = async (req, res, result, options) => {
    const { params } = await provider.interactionDetails(req, res);
    if (result.login && params.acr_values) result.login.acr = params.acr_values.split(' ')[0];
    return finish(req, res, result, options);
  };
  provider.registerGrantType(TOKEN_EXCHANGE, async (ctx) => {
    const { params, client } = ctx.oidc;
    const ofRobot = params.subject_token?.split('.').length === 3; // its JWTs are not kept
    const subject = ofRobot ? { accountId: 'robot' } : await provider.AccessToken.find(params.subject_token);
    if (!subject) {
      ctx.status = 400;
      ctx.body = { error: 'invalid_grant', error_description: 'no such subject_token' };
      return;
    }
    const token = new provider.AccessToken({ accountId: subject.accountId, client, grantId: subject.grantId, scope: params.scope, gty: 'token_exchange', extra: { audience: params.audience } });
    ctx.body = {
      access_token: `for-${params.audience}-${await token.save()}`,
      issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
      token_type: 'Bearer',
      expires_in: token.expiration,
      scope: params.scope,
    };
  }, ['subject_token', 'subject_token_type', 'requested_token_type', 'actor_token', 'actor_token_type', 'audience', 'scope', 'resource']);
}

provider.on('backchannel.error', (ctx, err) => console.log(`sign-out not told: ${err.message} ${err.cause ?? ''}`));

// What Postern must show nowhere.
const secret = ['code', 'code_verifier', 'code_challenge', 'state', 'nonce', 'refresh_token', 'client_assertion', 'subject_token', 'id_token_hint'];

provider.use(async (ctx, next) => {
  await next();
  const params = ctx.oidc?.params ?? {};
  console.log(JSON.stringify({ event: 'secrets', secrets: Object.fromEntries(secret.filter((name) => params[name]).map((name) => [name, params[name]])) }));
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
