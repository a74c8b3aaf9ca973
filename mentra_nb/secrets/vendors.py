"""The forms of vendors' keys: how each begins, and what follows.

The least numbers of characters are lower than those of whole keys, so that a part of a key that was cut is found too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from mentra_nb.secrets.late import late

_ALNUM, _WORD, _DOTS, _BASE64 = r"[A-Za-z0-9]", r"[\w-]", r"[\w.~-]", r"[\w.+/=-]"

PREFIXES: tuple[tuple[str, str, str, int], ...] = (
    ("OpenAI, Anthropic, OpenRouter, DeepSeek, Moonshot, LiteLLM, Langfuse", "sk-", _WORD, 16),
    ("Stripe, Clerk, ElevenLabs", "sk_ rk_ pk_", _WORD, 16),
    ("Langfuse public", "pk-", _WORD, 16),
    ("Stripe and Svix webhooks", "whsec_", _BASE64, 16),
    ("Hugging Face", "hf_ api_org_", _ALNUM, 12),
    ("Groq", "gsk_", _ALNUM, 16),
    ("xAI", "xai-", _ALNUM, 16),
    ("NVIDIA", "nvapi-", _WORD, 16),
    ("Perplexity", "pplx-", _ALNUM, 16),
    ("Cerebras", "csk-", _ALNUM, 16),
    ("Replicate", "r8_", _ALNUM, 16),
    ("Fireworks", "fw_ fpk_", _ALNUM, 16),
    ("Together", "tgp_v1_", _WORD, 16),
    ("Voyage", "pa-", _WORD, 30),
    ("Jina", "jina_", _ALNUM, 16),
    ("Tavily", "tvly-", _WORD, 16),
    ("Firecrawl", "fc-", _ALNUM, 20),
    ("E2B", "e2b_", _ALNUM, 16),
    ("Anyscale", "esecret_", _ALNUM, 16),
    ("Context7", "ctx7sk-", _WORD, 16),
    ("Weights & Biases", "wandb_v1_", _WORD, 16),
    ("LangSmith", "lsv2_pt_ lsv2_sk_ ls__", _WORD, 16),
    ("Pinecone", "pcsk_", _WORD, 16),
    ("AWS Bedrock", "ABSK bedrock-api-key-", _BASE64, 24),
    ("AWS", "AKIA ASIA ABIA ACCA", r"[A-Z0-9]", 16),
    ("Databricks", "dapi dkea dsapi dose", r"[0-9a-f-]", 30),
    ("Google API", "AIza AQ.Ab", _WORD, 26),
    ("Google OAuth", "ya29.", _DOTS, 16),
    ("Google OAuth refresh", "1//0", _WORD, 24),
    ("Google client secret", "GOCSPX-", _WORD, 16),
    ("GitHub", "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_", r"\w", 16),
    ("GitLab", "glpat- gldt- glrt- glrtr- glptt- glcbt- glft- glsoat- glimt- glagent- gloas- glffct-", _DOTS, 16),
    ("Slack", "xoxa- xoxb- xoxe- xoxo- xoxp- xoxr- xoxs- xoxc- xoxd- xoxe.xoxp- xoxe.xoxb- xapp-", _WORD, 12),
    ("npm", "npm_", _ALNUM, 16),
    ("PyPI", "pypi-", _WORD, 16),
    ("RubyGems", "rubygems_", _ALNUM, 16),
    ("crates.io", "cio", _ALNUM, 30),
    ("NuGet", "oy2", r"[a-z0-9]", 40),
    ("Clojars", "CLOJARS_", _ALNUM, 16),
    ("Artifactory", "AKCp cmVmd", _ALNUM, 30),
    ("Docker", "dckr_pat_ dckr_oat_", _WORD, 16),
    ("SendGrid", "SG.", _DOTS, 20),
    ("Brevo", "xkeysib- xsmtpsib-", _WORD, 16),
    ("Resend", "re_", r"\w", 25),
    ("Shopify", "shpat_ shpss_ shpca_ shppa_", _ALNUM, 16),
    ("Square", "sq0atp- sq0csp-", _WORD, 20),
    ("Facebook, Square", "EAA", _WORD, 56),
    ("Flutterwave", "FLWSECK_ FLWSECK-", _WORD, 16),
    ("EasyPost", "EZAK EZTK", _ALNUM, 30),
    ("Shippo", "shippo_live_ shippo_test_", _ALNUM, 16),
    ("Duffel", "duffel_live_ duffel_test_", _WORD, 16),
    ("Vault", "hvs. hvb. hvr.", _DOTS, 16),
    ("DigitalOcean", "dop_v1_ doo_v1_ dor_v1_", _ALNUM, 16),
    ("Heroku", "HRKU-", _WORD, 16),
    ("New Relic", "NRAK- NRJS- NRII- NRRA-", _WORD, 16),
    ("Linear", "lin_api_ lin_oauth_", _ALNUM, 16),
    ("Notion", "ntn_ secret_", _ALNUM, 26),
    ("Figma", "figd_ figo_", _WORD, 16),
    ("Postman", "PMAK-", _WORD, 16),
    ("Atlassian, Bitbucket", "ATATT3 ATCTT3 ATBB", _BASE64, 20),
    ("Grafana", "glsa_ glc_", _BASE64, 16),
    ("Sentry", "sntrys_ sntryu_", _BASE64, 16),
    ("Fly.io", "fo1_ fm1_ fm2_ fm1r_", _BASE64, 16),
    ("PlanetScale", "pscale_tkn_ pscale_pw_ pscale_oauth_", _DOTS, 16),
    ("Supabase", "sbp_ sb_secret_", _WORD, 16),
    ("Neon", "napi_", _ALNUM, 30),
    ("Doppler", "dp.pt. dp.st. dp.ct. dp.sa. dp.scim. dp.audit.", _DOTS, 16),
    ("age", "AGE-SECRET-KEY-1", r"[A-Z0-9]", 20),
    ("Contentful", "CFPAT-", _WORD, 16),
    ("Dynatrace", "dt0c01. dt0s01. dt0s02.", _DOTS, 16),
    ("HubSpot", "pat-na1- pat-na2- pat-eu1-", _WORD, 16),
    ("Alibaba Cloud", "LTAI", _ALNUM, 12),
    ("Tencent Cloud", "AKID", _ALNUM, 28),
    ("Yandex Cloud", "AQVN", _DOTS, 34),
    ("Tailscale", "tskey-", _WORD, 16),
    ("PostHog", "phx_ phc_", _ALNUM, 16),
    ("Sourcegraph", "sgp_ slk_", _WORD, 30),
    ("Buildkite", "bkua_ bkat_", _ALNUM, 16),
    ("CircleCI", "CCIPAT_ CCIPRJ_", _WORD, 16),
    ("Netlify", "nfp_ nfo_ nfc_ nfu_", _ALNUM, 16),
    ("Vercel", "vcp_ vci_ vca_ vcr_ vck_", _ALNUM, 20),
    ("Cloudflare origin", "v1.0-", _WORD, 40),
    ("Pulumi", "pul-", r"[0-9a-f]", 30),
    ("Prefect", "pnu_ pnb_", _ALNUM, 16),
    ("Scaleway", "SCW", r"[A-Z0-9]", 16),
    ("1Password", "ops_", _BASE64, 40),
    ("Readme.io", "rdme_", _ALNUM, 16),
    ("Typeform", "tfp_", _DOTS, 30),
    ("Snyk", "snyk_uat. snyk_sat.", _DOTS, 16),
    ("SonarQube", "sqp_ squ_ sqa_", _ALNUM, 16),
    ("Octopus Deploy", "API-", r"[A-Z0-9]", 24),
    ("OpenShift", "sha256~", _WORD, 30),
    ("Adobe", "p8e-", _ALNUM, 16),
    ("Lob", "live_pub_ test_pub_", _ALNUM, 16),
)
"""The vendor, how its keys begin, the characters that follow, and how many at least."""

FIXED: tuple[tuple[str, str, str], ...] = (
    ("Airtable", "pat", r"p(?<![\w-]p)at[A-Za-z0-9]{14}\.[0-9a-f]{16,64}"),
    ("1Password secret key", "A3-", r"A3(?<![\w-]A3)-[A-Z0-9]{6}-[A-Z0-9]{6}-?[A-Z0-9]{5}(?:-[A-Z0-9]{5}){3}"),
    ("Telegram", ":AA", r"(?<![\w:-])(?:bot)?\d{8,10}:AA[\w-]{24,34}"),
    ("Discord", ".", r"[MNO](?<![\w.-][MNO])[A-Za-z\d]{23,27}\.[\w-]{6}\.[\w-]{20,40}"),
    ("Twilio", "SK", r"S(?<![\w-]S)K[0-9a-f]{32}(?!\w)"),
    ("Mailgun", "key-", r"(?<![\w-])(?:key|pubkey)-[0-9a-f]{32}(?!\w)"),
    ("Mailchimp", "-us", r"(?<![\w-])[0-9a-f]{32}-us\d{1,2}(?!\w)"),
    ("Azure AD client secret", "Q~", r"(?<![\w~.-])[\w~.-]{3}\dQ~[\w~.-]{24,40}"),
    ("Terraform Cloud", ".atlasv1.", r"(?<![\w-])[A-Za-z0-9]{14}\.atlasv1\.[\w-]{30,90}"),
    ("Azure storage", "+ASt", r"(?<![\w+/-])[A-Za-z0-9+/]{76}\+ASt[A-Za-z0-9+/]{4,8}={1,2}"),
    ("Azure AI", "JQQJ9", r"(?<![\w+/-])[A-Za-z0-9]{52}JQQJ9[A-Za-z0-9]{20,30}"),
    ("Zhipu", ".", r"[0-9a-f](?<![\w-][0-9a-f])[0-9a-f]{31}\.[A-Za-z0-9]{16}(?!\w)"),
    ("Slack webhook", "hooks.slack.com/", r"(?<=hooks\.slack\.com/)(?:services|workflows|triggers)/[\w/]{20,120}"),
    ("Discord webhook", "/api/webhooks/", r"(?<=/api/webhooks/)\d{15,22}/[\w-]{40,100}"),
    ("Teams webhook", "webhook.office.com/", r"(?<=webhook\.office\.com/)webhookb2/[\w@/-]{40,300}"),
    ("JSON Web Token", "eyJ", r"(?<![\w-])eyJ[\w-]{8,4096}+\.[\w-]{8,65536}+(?:\.[\w-]{0,4096}+){0,3}"),
    (
        "hash of a password",
        "$",
        r"\$(?:apr1|2[abxy]|5|6|y|7|argon2(?:id|i|d)|pbkdf2-sha\d{1,3})\$[\w./$=,+-]{20,200}",
    ),
)
"""The vendor, what a text with its key holds, and the form of the key. Every part is limited."""


_LEAST = 15
"""Characters of what may be a key, or hold one: no key is shorter."""
_MARKS = bytes(b"x"[0] if chr(byte).isalnum() or chr(byte) in "_.~+/=-" else b" "[0] for byte in range(128)).ljust(256)


def runs(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the letters of keys stand, at least `_LEAST` in a row."""
    marks, end = text.encode("ascii", "replace").translate(_MARKS), 0
    while (start := marks.find(b"x" * _LEAST, end)) >= 0:
        end = marks.find(b" ", start)
        end = len(marks) if end < 0 else end
        yield start, end


def _grouped(*, whole: bool) -> str:
    """Return an expression for all `PREFIXES`, by first letters; with what follows them if `whole`."""
    rows = [(begin, letters, least) for _, begins, letters, least in PREFIXES for begin in begins.split()]
    rows.sort(key=lambda row: (row[0][0], -len(row[0])))
    groups = []
    for first, group in groupby(rows, key=lambda row: row[0][0]):
        parts = [re.escape(begin[1:]) + (f"{letters}{{{least},}}" if whole else "") for begin, letters, least in group]
        groups.append(f"{re.escape(first)}(?:{'|'.join(parts)})")
    return "|".join(groups)


_FIRST = late(_grouped(whole=False))
_INNER = late(rf"[-.~+/=](?:{_grouped(whole=False)})")
_WHOLE_FORM = _grouped(whole=True)
_WHOLE = late(f"(?<![A-Za-z0-9_])(?:{_WHOLE_FORM})", re.ASCII)
_WHOLE_ESCAPED = late(f"[nrtbf]({_WHOLE_FORM})", re.ASCII)


def may_hold_key(text: str) -> bool:
    """Return whether a text, or the JSON of one, may hold a key with one of `PREFIXES`. Never False if it does."""
    for start, end in runs(text):
        if _FIRST.match(text, start, end) or _INNER.search(text, start, end):
            return True
        # In JSON, the letter of an escaped line break stands before the key.
        if start and text[start - 1] == "\\" and _FIRST.match(text, start + 1, end):
            return True
    return False


def prefixed(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of keys with one of `PREFIXES`."""
    for start, end in runs(text):
        if start and text[start - 1] == "\\":
            found = _WHOLE_ESCAPED.match(text, start, end)
            if found is not None and looks_random(found[1]):
                yield found.span(1)
        for found in _WHOLE.finditer(text, start, end):
            if looks_random(found[0]):
                yield found.span()


_MIXED = late(r"(?<=[a-z])[A-Z]|(?<=[A-Za-z])\d|(?<=\d)[A-Za-z]")


def looks_random(text: str) -> bool:
    """Return whether a text looks generated: digits and letters mixed, or many capitals in one word.

    `sk-estimator-id-12` does not: it is a name.
    """
    if len(_MIXED.findall(text)) >= 4:
        return True
    for part in re.split(r"[-_.~/=+:]", text):
        if len(part) >= 8 and re.search(r"\d", part) and (re.search("[A-Za-z]", part) or len(part) >= 12):
            return True
        if len(part) >= 16 and part != part.lower():
            return True
    return False
