"""Texts with and without secrets. Keys are built when this is imported, so that no file holds one that looks real."""

# ruff: noqa: E501
from __future__ import annotations

import random
import string

_random = random.Random(7)
HEX, LOWER, UPPER, DIGITS = "0123456789abcdef", string.ascii_lowercase, string.ascii_uppercase, string.digits
ALNUM = string.ascii_letters + DIGITS
WORD = ALNUM + "_-"


def filler(length: int, letters: str = ALNUM) -> str:
    return "".join(_random.choice(letters) for _ in range(length))


_RULES = """
OpenAI|sk-|48 a;OpenAI project|sk-proj-|120 w;OpenAI service|sk-svcacct-|60 w;Anthropic|sk-ant-api03-|93 w AA
Anthropic OAuth|sk-ant-oat01-|80 w;OpenRouter|sk-or-v1-|64 h;DeepSeek|sk-|32 h;Langfuse secret|sk-lf-|8 h - 4 h - 12 h
Langfuse public|pk-lf-|8 h - 4 h - 12 h;Stripe live|sk_live_|24 a;Stripe restricted|rk_live_|99 a;Stripe public|pk_test_|24 a
ElevenLabs|sk_|48 h;Stripe webhook|whsec_|32 a;Hugging Face|hf_|34 l;Hugging Face organisation|api_org_|34 l
Groq|gsk_|52 a;xAI|xai-|80 a;NVIDIA|nvapi-|64 w;Perplexity|pplx-|48 a;Cerebras|csk-|48 s;Replicate|r8_|37 a
Fireworks|fw_|24 a;Fireworks new|fpk_|24 a;Together|tgp_v1_|43 w;Voyage|pa-|43 w;Jina|jina_|60 a;Tavily|tvly-dev-|32 a;Firecrawl|fc-|32 h
E2B|e2b_|40 h;Anyscale|esecret_|26 s;Context7|ctx7sk-|8 h - 4 h - 12 h;Weights & Biases|wandb_v1_|60 w
LangSmith|lsv2_pt_|32 h _ 10 h;LangSmith service|lsv2_sk_|32 h _ 10 h;LangSmith old|ls__|32 h;Pinecone|pcsk_|6 a _ 60 a
Bedrock|ABSK|128 a;Bedrock short|bedrock-api-key-|80 a;AWS key|AKIA|16 b;AWS session|ASIA|16 b;AWS bearer|ABIA|16 b;AWS context|ACCA|16 b
Databricks|dapi|32 h;Databricks 2|dkea|32 h;Databricks 3|dsapi|32 h;Databricks 4|dose|32 h
Google|AIza|35 w;Google new|AQ.Ab|46 w;Google OAuth|ya29.|120 w;Google refresh|1//0|60 w;Google client|GOCSPX-|28 w
GitHub|ghp_|36 a;GitHub OAuth|gho_|36 a;GitHub user|ghu_|36 a;GitHub app|ghs_|36 a;GitHub refresh|ghr_|76 a;GitHub fine|github_pat_|22 a _ 59 a
GitLab|glpat-|20 w;GitLab routable|glpat-|27 w .01. 9 s;GitLab deploy|gldt-|20 w;GitLab runner|glrt-|20 w;GitLab routable runner|glrtr-|20 w
GitLab trigger|glptt-|40 h;GitLab job|glcbt-|20 w;GitLab feed|glft-|20 w;GitLab SCIM|glsoat-|20 w;GitLab mail|glimt-|25 w
GitLab agent|glagent-|50 w;GitLab OAuth|gloas-|64 a;GitLab feature|glffct-|20 w
Slack bot|xoxb-|12 d - 12 d - 24 a;Slack user|xoxp-|12 d - 12 d - 12 d - 32 h;Slack a|xoxa-|12 d - 24 a;Slack e|xoxe-|1 d - 146 a
Slack o|xoxo-|12 d - 24 a;Slack r|xoxr-|12 d - 24 a;Slack s|xoxs-|12 d - 24 a;Slack c|xoxc-|12 d - 64 h;Slack d|xoxd-|80 a
Slack rotated|xoxe.xoxp-|1 d - 160 a;Slack rotated bot|xoxe.xoxb-|1 d - 160 a;Slack app|xapp-|1 d -A0 9 b - 12 d - 64 h
npm|npm_|36 a;PyPI|pypi-AgEIcHlwaS5vcmc|150 w;RubyGems|rubygems_|48 h;crates.io|cio|32 a;NuGet|oy2|43 s;Clojars|CLOJARS_|60 s
Artifactory|AKCp|69 a;Artifactory reference|cmVmd|59 a;Docker|dckr_pat_|27 w;Docker organisation|dckr_oat_|32 w
SendGrid|SG.|22 w . 43 w;Brevo|xkeysib-|64 h - 16 a;Brevo SMTP|xsmtpsib-|64 h - 16 a;Resend|re_|8 a _ 24 a
Shopify|shpat_|32 h;Shopify shared|shpss_|32 h;Shopify custom|shpca_|32 h;Shopify private|shppa_|32 h
Square|sq0atp-|22 w;Square client|sq0csp-|43 w;Square access|EAAA|60 w;Facebook|EAAC|180 a;Flutterwave|FLWSECK_TEST-|32 h -X;Flutterwave live|FLWSECK-|32 h -X
EasyPost|EZAK|54 a;EasyPost test|EZTK|54 a;Shippo|shippo_live_|40 h;Shippo test|shippo_test_|40 h;Duffel|duffel_live_|43 w;Duffel test|duffel_test_|43 w
Vault|hvs.|95 w;Vault batch|hvb.|140 w;Vault recovery|hvr.|95 w;DigitalOcean|dop_v1_|64 h;DigitalOcean OAuth|doo_v1_|64 h;DigitalOcean refresh|dor_v1_|64 h
Heroku|HRKU-|60 w;New Relic|NRAK-|27 b;New Relic browser|NRJS-|19 h;New Relic insights|NRII-|32 w;New Relic REST|NRRA-|42 h
Linear|lin_api_|40 a;Linear OAuth|lin_oauth_|64 h;Notion|ntn_|46 a;Notion old|secret_|43 a;Figma|figd_|40 w;Figma OAuth|figo_|40 w;Postman|PMAK-|24 h - 34 h
Atlassian|ATATT3|186 w;Atlassian connect|ATCTT3|186 w;Bitbucket|ATBB|32 a;Grafana|glsa_|32 a _ 8 h;Grafana Cloud|glc_|120 a
Sentry|sntrys_|120 a;Sentry user|sntryu_|64 h;Fly.io|fo1_|43 w;Fly.io 1|fm1_|100 a;Fly.io 2|fm2_|100 a;Fly.io 1r|fm1r_|100 a
PlanetScale|pscale_tkn_|43 w;PlanetScale password|pscale_pw_|43 w;PlanetScale OAuth|pscale_oauth_|43 w;Supabase|sbp_|40 h;Supabase secret|sb_secret_|31 w
Neon|napi_|64 s;Doppler|dp.pt.|43 a;Doppler service|dp.st.dev.|40 a;Doppler CLI|dp.ct.|40 a;Doppler account|dp.sa.|40 a;Doppler SCIM|dp.scim.|40 a;Doppler audit|dp.audit.|40 a
age|AGE-SECRET-KEY-1|58 b;Contentful|CFPAT-|43 w;Dynatrace|dt0c01.|24 b . 64 b;Dynatrace SaaS|dt0s01.|24 b . 64 b;Dynatrace OAuth|dt0s02.|24 b . 64 b
HubSpot|pat-na1-|8 h - 4 h - 12 h;HubSpot 2|pat-na2-|8 h - 4 h - 12 h;HubSpot EU|pat-eu1-|8 h - 4 h - 12 h;Alibaba|LTAI|20 a;Tencent|AKID|32 a;Yandex|AQVN|35 w
Tailscale|tskey-auth-|12 a CNTRL- 32 a;PostHog|phx_|43 a;PostHog project|phc_|43 a;Sourcegraph|sgp_|40 h;Sourcegraph licence|slk_|64 h
Buildkite|bkua_|40 h;Buildkite agent|bkat_|40 h;CircleCI|CCIPAT_|22 a _ 40 h;CircleCI project|CCIPRJ_|22 a _ 40 h
Netlify|nfp_|36 a;Netlify OAuth|nfo_|36 a;Netlify CLI|nfc_|36 a;Netlify UI|nfu_|36 a;Vercel|vcp_|24 a;Vercel 2|vci_|24 a;Vercel 3|vca_|24 a;Vercel 4|vcr_|24 a;Vercel AI|vck_|48 a
Cloudflare origin|v1.0-|24 h - 146 h;Pulumi|pul-|40 h;Prefect|pnu_|36 a;Prefect bot|pnb_|36 a;Scaleway|SCW|17 b;1Password service|ops_eyJ|250 a
Terraform|xxxxxxxxxxxxxx.atlasv1.|60 w;Readme|rdme_|70 s;Typeform|tfp_|59 w;Snyk|snyk_uat.|40 h;Snyk service|snyk_sat.|40 h
SonarQube|sqp_|40 h;SonarQube user|squ_|40 h;SonarQube global|sqa_|40 h;Octopus|API-|26 b;OpenShift|sha256~|43 w;Adobe|p8e-|32 s
Lob|live_pub_|31 h;Lob test|test_pub_|31 h;Airtable|pat|14 a . 64 h;1Password key|A3-|6 b - 6 b - 5 b - 5 b - 5 b - 5 b
Telegram||9 d :AA 33 w;Discord|M|23 a . 6 w . 38 w;Twilio|SK|32 h;Mailgun|key-|32 h;Mailchimp||32 h -us12;Azure AD||3 a 8Q~ 34 w;Azure storage||76 a +ASt 6 a ==
Azure AI||52 a JQQJ99 26 a;Zhipu||32 h . 16 a;JSON Web Token|eyJ|30 a .eyJ 60 a . 43 w;hash of a password|$6$|8 a $ 86 a;hash, bcrypt|$2b$12$|53 a
"""
_SETS = {
    "a": ALNUM,
    "w": WORD,
    "h": HEX,
    "s": LOWER + DIGITS,
    "b": UPPER + "234567",
    "d": DIGITS,
    "l": string.ascii_letters,
}


def _built(begin: str, rule: str) -> str:
    """Return a key: `8 h - 4 h` is 8 hexadecimal digits, a hyphen, and 4 more."""
    words, text = rule.split(), begin
    while words:
        word = words.pop(0)
        text += filler(int(word), _SETS[words.pop(0)]) if word.isdigit() else word
    return text + "7x" if text.endswith(("-", "_")) else text  # a form may not end in a hyphen


KEYS = {
    name: _built(begin, rule)
    for line in _RULES.strip().splitlines()
    for name, begin, rule in (part.split("|") for part in line.split(";"))
}
"""A vendor's name, and a key of its form with the length that the vendor uses."""

SECRET = "Zq7" + filler(17)
"""A password that no vendor's form finds."""

_HOOK = "https://hooks.slack.com/services/T" + filler(8, UPPER) + "/B" + filler(8, UPPER) + "/"

CONTEXTS = tuple(text.replace("@V@", SECRET) for text in (
    # flags
    "gh auth login --token @V@", "tool --password @V@", "tool --password=@V@", "tool --api-key @V@", "tool --api-key=@V@",
    "tool --secret '@V@'", 'tool --client-secret "@V@"', "vault login -token=@V@", "kubectl --token=@V@ get pods", "gpg --passphrase @V@ -d f",
    "az login --service-principal -u app -p @V@", "twine upload -u __token__ -p @V@ dist/x", "terraform apply -var db_password=@V@",
    '["gh", "auth", "login", "--token", "@V@"]', '["curl", "-u", "bob:@V@", "https://h"]', '["sshpass", "-p", "@V@", "ssh"]',
    "helm install x --set auth.password=@V@", "kubectl create secret generic x --from-literal=password=@V@", "wget --http-password=@V@ h",
    "docker run -e API_TOKEN=@V@ img", "mysql -u root -p@V@ db", "mysqldump --user=a --password='@V@' db", "sshpass -p @V@ ssh h",
    "sshpass -p'@V@' ssh h", "docker login -u bob -p @V@", "podman login -p @V@ quay.io", "redis-cli -h h -a @V@ ping", "mongosh -u bob -p @V@",
    "ldapsearch -x -D cn=a -w @V@ -b dc=x", "zip -P @V@ a.zip b", "unzip -P @V@ a.zip", "7z x -p@V@ a.7z", "plink -pw @V@ h",
    "htpasswd -b .htpasswd bob @V@", "sqlplus bob/@V@@db", "security add-generic-password -a bob -s x -w @V@", "sqlcmd -S h -U sa -P @V@",
    "openssl enc -aes-256-cbc -pass pass:@V@", "openssl rsa -passin pass:@V@ -in k", "smbclient //h/s -U bob%@V@",
    "echo 'bob:@V@' | sudo chpasswd", "echo @V@ | docker login -u bob --password-stdin", "echo '@V@' | sudo -S ls",
    "gh auth login --with-token <<< '@V@'", "aws configure set aws_secret_access_key @V@", "http -a bob:@V@ example.org",
    "cargo login @V@", "wandb login @V@", "gh secret set DEPLOY_KEY --body @V@", "gh secret set X -b'@V@'", "fly secrets create X --value=@V@",
    "rabbitmqctl add_user bob @V@", "rabbitmqctl change_password bob @V@", "poetry config http-basic.private bob @V@", "poetry config pypi-token.pypi @V@",
    "npm config set //gitlab.example.org/api/v4/packages/npm/:_authToken @V@", r"net use Z: \\h\x /user:bob @V@", "lftp -u bob,@V@ h", "snmpwalk -v3 -u bob -A @V@ h",
    "snmpget -v3 -u bob -X '@V@' h", "useradd -p @V@ bob", "usermod -p '@V@' bob", "keytool -list -keystore k -storepass @V@", "keytool -keypass @V@ -list",
    "mysql -u root -p @V@ db", "nmcli dev wifi connect Home password @V@",
    # user:password
    "curl -u bob:@V@ https://h", "curl --user bob:@V@ h", "curl -u 'bob:@V@' h", "curl --proxy-user bob:@V@ h", "curl -ubob:@V@ h", "curl -u :@V@ h",
    "redis://:@V@@h:6379/0", "postgres://bob:@V@@h/db", "postgresql+psycopg2://bob:p@@V@@h/db", "https://@V@@github.com/a/b",
    "https://oauth2:@V@@gitlab.com/a", "mongodb+srv://u:@V@@c.net", "amqp://u:@V@@h//", "smtp://u:@V@@h:587", "DATABASE_URL=mysql://r:@V@@h/d",
    # assignments
    "os.environ['MY_API_KEY'] = '@V@'", 'os.environ["X_TOKEN"] = "@V@"', "env['SECRET']: @V@", 'os.environ.setdefault("X_TOKEN", "@V@")',
    'os.putenv("DB_PASSWORD", "@V@")', "setenv OPENAI_API_KEY @V@", "setx MY_TOKEN @V@", "set -x MY_TOKEN @V@", "set MY_TOKEN=@V@",
    "ENV GITHUB_TOKEN @V@", "ENV GITHUB_TOKEN=@V@", "ARG NPM_TOKEN=@V@", "export OPENAI_KEY=@V@", "OPENAI_KEY='@V@'", 'DB_PASS="@V@"', "DB_PASSWORD=@V@",
    "PGPASSWORD=@V@ psql", "MYSQL_PWD=@V@ mysql", "AWS_SECRET_ACCESS_KEY=@V@", "aws_session_token = @V@", "[default]\naws_secret_access_key = @V@",
    "password: str = '@V@'", 'def f(token="@V@"): ...', "token := '@V@'", "'token' => '@V@'", "$password = '@V@';", "define('DB_PASSWORD', '@V@');",
    "$env:API_KEY = '@V@'", "ConvertTo-SecureString '@V@' -AsPlainText", 'Sys.setenv(API_KEY = "@V@")', "process.env.API_KEY = '@V@'",
    "const apiKey = `@V@`", "if password == '@V@':", "token\t=\t@V@", "password = 'two words @V@'", 'password = "a\\"b@V@"', "f(password=b'@V@')",
    "credentials = '@V@'", "GITHUB_PAT=@V@", "service_key: @V@", "SECRET_KEY = '@V@'", "secret_key_base: @V@", "dbPass = '@V@'", "Client(api_key='@V@')",
    "password: '@V@'", "  password: @V@", "password: |\n    @V@", "passwd = @V@", "passphrase: @V@", "client_secret=@V@", "clientSecret: '@V@'",
    "private_key = @V@", "signing_key: @V@", "encryption-key=@V@", "secretKey=@V@", "apiKey: '@V@'", "api-key: @V@", "x_token_2 = '@V@'",
    '{"username":"bob","key":"@V@"}', '{"password": "@V@"}', '{\\"api_key\\": \\"@V@\\"}', "{'secret': '@V@'}", '{"a":{"db_password":"@V@"}}',
    '{"name": "API_TOKEN", "value": "@V@"}', "- name: API_TOKEN\n  value: @V@", '<add key="ApiToken" value="@V@"/>', '<input type="password" value="@V@">',
    "<password>@V@</password>", "<ApiKey>@V@</ApiKey>", "psk=\"@V@\"", "PrivateKey = @V@=", "PresharedKey = @V@=", "spring.datasource.password=@V@",
    # connection strings and addresses
    "AccountName=a;AccountKey=@V@==;EndpointSuffix=x", "Endpoint=sb://h/;SharedAccessKey=@V@", "Server=h;User Id=u;Password=@V@;", "Server=h;Uid=u;Pwd=@V@;",
    "psql 'host=h user=u password=@V@'", "https://a.blob.core.windows.net/x?sv=1&sig=@V@", "https://h/x?api_key=@V@&q=1", "https://h?access_token=@V@",
    "https://h?token=@V@", "https://h/cb?code=@V@&x=1", "https://maps/api?key=@V@", "https://s3/x?X-Amz-Signature=@V@", "https://s3/x?X-Amz-Security-Token=@V@",
    "https://storage/x?X-Goog-Signature=@V@", "https://cdn/x?Expires=1&Signature=@V@&Key-Pair-Id=K", "otpauth://totp/a?secret=@V@&issuer=b", _HOOK + "@V@",
    # headers
    "X-Api-Key: @V@", "curl -H 'X-Api-Key: @V@'", "curl -H 'Authorization: Bearer @V@'", "Authorization: Basic @V@==", "Authorization: token @V@",
    "Proxy-Authorization: Basic @V@", "Authorization: @V@", "headers = {'Authorization': 'Bearer @V@'}", "headers['Authorization'] = f'Bearer @V@'",
    "Cookie: session=@V@", "Set-Cookie: id=@V@; HttpOnly", "curl -b 'session=@V@' h", "curl --cookie session=@V@ h", "Bearer @V@", "PRIVATE-TOKEN: @V@",
    "X-Vault-Token: @V@", "Ocp-Apim-Subscription-Key: @V@", "x-goog-api-key: @V@", "X-Auth-Token: @V@", "Authorization: AWS4-HMAC-SHA256 Credential=A/x, Signature=@V@",
    # files
    "machine h login bob password @V@", "default login bob password @V@", "machine h\n  login bob\n  password @V@", "h.example.com:5432:db:bob:@V@", "*:*:*:bob:@V@",
    "//registry.npmjs.org/:_authToken=@V@", "_auth=@V@", "//r/:_password=@V@", "[pypi]\nusername = __token__\npassword = @V@",
    '{"auths":{"h":{"auth":"@V@"}}}', "users:\n- user:\n    token: @V@", "    client-key-data: @V@", "kind: Secret\ndata:\n  password: @V@", "protocol=https\nhost=h\npassword=@V@",
    "requirepass @V@", "masterauth @V@", "CREATE USER bob IDENTIFIED BY '@V@'", "ALTER ROLE bob WITH PASSWORD '@V@'", "SET PASSWORD FOR bob = '@V@'", "bindpw @V@",
    "-----BEGIN PRIVATE KEY-----\n@V@\n-----END PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----\n@V@", "-----BEGIN OPENSSH PRIVATE KEY-----\n@V@",
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\n@V@", '"private_key": "-----BEGIN PRIVATE KEY-----\\n@V@\\n-----END PRIVATE KEY-----\\n"', "@V@\n-----END RSA PRIVATE KEY-----",
    "Private-Lines: 2\n@V@\n@V@", "AKIA" + "B3" * 8 + ",@V@@V@", "Initial Root Token: @V@", "Unseal Key 1: @V@",
    # calls
    "requests.get(u, auth=('bob', '@V@'))", 'HTTPBasicAuth("bob", "@V@")', "jdbc:oracle:thin:bob/@V@@h:1521", "passphrase \"@V@\"",
    # prose
    "use the API key `@V@` for this", "with the token '@V@' it works", "the client secret @V@ is old", "Das Passwort lautet @V@", "Kennwort: @V@",
    "my password is @V@", "The API key is @V@.", "set the password to @V@ now", "user: bob password: @V@", "token @V@".replace("token ", "token: "),
))  # fmt: skip
"""Texts with `SECRET` in a place that says what it is."""

HARMLESS = (
    "max_tokens=4096", "input_tokens: 12000", "a basic understanding", "pip install sk-learn-extra-package-name", "https://example.org/a/b@2",
    "the bearer of news", "keyword=value", "tool_authorization_started", "token = next(tokens)", "token = get_token()", "password = getpass()",
    "password: str", "token: Token", "secret=os.environ['X']", "password=$DB_PASSWORD", "token=${TOKEN}", "token: {{ vault_token }}", "token: null",
    "password=None", "api_key=settings.api_key", "login(password=password)", "sort(key=lambda x: x)", "primary_key=True", "df.sort_values(key='name')",
    "foreign_key: user_id", "cache_key = 'users'", "key: value", "git push -u origin main", "tar -xzf a.tar.gz", "ls -la /home", "docker ps -a",
    "docker run -p 8080:80 nginx", "docker run -u 1000:1000 img", "cp -p a b", "mkdir -p x/y", "grep -u foo bar", "12:30:45 started",
    "2026-11-29T12:00:00Z", "http://localhost:8888/lab", "http://h:80/a?b=c", "user@example.org", "ssh git@github.com", "git@github.com:a/b.git",
    "a1b2c3d4e5f6a7b8c9d0a1b2c3d4e5f6a7b8c9d0", "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "550e8400-e29b-41d4-a716-446655440000",
    "the secret of success", "a password is needed", "the password is required", "forgot your password?", "token count: 12", "tokens per second: 40",
    "pass the salt", "compass: north", "bypass = true", "significant = 0.05", "author: Ann Smith", "the key point: be brief", "from secrets import token_hex",
    "import getpass", "def check_password(password):", "pattern: *.csv", "path: /etc/hosts", "hf_hub_download(repo)", "git log --author=bob",
    "print('api key missing')", "pk_column_name", "sk-learn", "x = {'key': 'value'}", "PWD=/home/ann/project", "ssh -i ~/.ssh/id_rsa host", "--key ./server.key",
    "private_key: /etc/ssl/private/key.pem", "pad_token_id=50256", "eos_token='</s>'", "tokenizer.pad_token = tokenizer.eos_token", "cls_token = '[CLS]'",
    "sk-container-id-1", "class='sk-estimator-doc-link fitted'", "sk-toggleable__label-arrow", "#sk-container-id-2 div.sk-text-repr-fallback",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg==",
    "commit 3f786850e387550fdab836ed7e6dc881de23001b", "md5 = 'd41d8cd98f00b204e9800998ecf8427e'", "x = hash(password)", "assert token is not None",
    "for token in doc:", "if token.startswith('a'):", "password_field.send_keys(x)", "secret = Secret.objects.get(id=1)", "--password-stdin", "--token-file /run/token",
    '{"type": "password", "label": "Password"}', "<input type='password' name='pw'>", "{'Authorization': f'Bearer {token}'}", "Authorization: Bearer <token>",
    "Authorization: Bearer $TOKEN", "Authorization is required for this page", "export API_KEY=<your key>", "api_key='your-api-key'", 'api_key="YOUR_API_KEY"',
    "api_key = os.getenv('API_KEY')", "api_key: ${{ secrets.API_KEY }}", "client = OpenAI(api_key=api_key)", "primary key (id)", "s3://bucket/key/2024/part-0001.parquet",
    "Key: logs/2024/11/29/part-0001.gz", '"key": "PROJ-1234"', '"key": "550e8400-e29b-41d4-a716-446655440000"', "keyboard: qwerty", "monkey=banana", "the token is invalid",
    "a.py:10:5: E501 line too long", "src/a.py:1000:50:E501:line", "pip install torch==2.4.0+cu121", "toolu_01A09q90qw90lq917835lq9", "call_abc123DEF456ghi789JKL012",
    "chatcmpl-9aBcDeFgHiJkLmNoPqRsTuVwXy", "resp_0123456789abcdef0123456789abcdef", "npm_config_user_agent", "npm_package_version", "hf_transfer", "task-2024-11-29-experiments",
    "The secret to good code: small functions.", "Two tokens: one for read, one for write.", "xai-grok is a model", "r8_baseline", "model_key: gpt-4o-mini",
    "rsa.PrivateKey", "ssh-keygen -t ed25519", "-----BEGIN CERTIFICATE-----", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ann@laptop",
    "gh auth login --with-token < token.txt", "http://example.org/?q=key", "https://example.org/search?keyword=token&page=2", "mysql -u root -p shop < dump.sql",
    "psql -h localhost -U postgres", "redis-cli -p 6379 ping", "credentials: include", "fetch(u, {credentials: 'same-origin'})",
    "Unexpected token 'abc123' in JSON at position 4", "kubectl get secret default-token-x7k2p", "docker login registry.example.org", "az login --use-device-code",
    "user login 2026-11-29T12:00:00Z", "call add_user with care", "runas /user:bob notepad.exe", "password SHA256 digests", "the token 550e8400-e29b-41d4-a716-446655440000",
    "token bert-base-uncased-v2-L12-H768", "a password field1 and field2", "snmpwalk -v2c -c public h", "useradd -m bob", "rabbitmqctl list_users",
    "lftp ftp.example.org", "gh secret set NAME < file", "poetry config virtualenvs.in-project true", "Das Passwort ist falsch", "bypass x1y2z3",
    "curl -s https://example.org/api/v1/users", "cookie = SimpleCookie()", "accept all cookies: yes",
)  # fmt: skip
"""Ordinary text, which stays as it is."""
