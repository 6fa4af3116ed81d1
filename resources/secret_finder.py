"""Secrets in running text: detect-secrets' vendor detectors, the key formats they lack, and values that a text itself
calls a password, key or token, held against entropy and an allowlist."""

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from pipelines.stages.data.protocols import Finding

_PLUGINS = (
    "artifactory.ArtifactoryDetector",
    "aws.AWSKeyDetector",
    "azure_storage_key.AzureStorageKeyDetector",
    "basic_auth.BasicAuthDetector",
    "discord.DiscordBotTokenDetector",
    "github_token.GitHubTokenDetector",
    "gitlab_token.GitLabTokenDetector",
    "jwt.JwtTokenDetector",
    "mailchimp.MailchimpDetector",
    "npm.NpmDetector",
    "openai.OpenAIDetector",
    "pypi_token.PypiTokenDetector",
    "sendgrid.SendGridDetector",
    "slack.SlackDetector",
    "square_oauth.SquareOAuthDetector",
    "stripe.StripeDetector",
    "telegram_token.TelegramBotTokenDetector",
    "twilio.TwilioKeyDetector",
)
_HINT = re.compile(r"[\w+/=.~:-]{16}|\bAKC|\bAP[\dA-F]|://|-----BEGIN|(?i:passw|pwd|secret|token|api.?key|bearer)")
"""Each detector needs one of these; most texts hold none."""

_VENDORS = re.compile(
    r"(?<![\w-])(?:AIza[\w-]{35}|GOCSPX-[\w-]{20,}|ya29\.[\w-]{20,}|github_pat_\w{22,}|sk-(?:ant|proj|"
    r"svcacct|or)-[\w-]{20,}|"
    r"sk-[A-Za-z0-9]{32,}|hf_[A-Za-z0-9]{30,}|dop_v1_[a-f0-9]{64}|dapi[a-f0-9]{32}|shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}|"
    r"ATATT3[\w=-]{20,}|lin_api_\w{32,}|glpat-[\w-]{20,}|(?:sk|rk|pk)_(?:live|test)_\w{20,}|whsec_\w{24,}|"
    r"xapp-\d-[\w-]{20,}|npm_\w{36}|pypi-[\w-]{40,}|SG\.[\w-]{16,}\.[\w-]{16,}|key-[a-f0-9]{32}|NRAK-[A-Z0-9]{27}|"
    r"hvs\.[\w-]{24,}|eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}|age-secret-key-1[0-9a-z]{50,})(?![\w-])",
    re.IGNORECASE,
)
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)"
)
_NAMED = re.compile(
    r"(?:pass(?:word|wd|phrase)?|pwd|secret(?:[_ -]?(?:access)?[_ -]?key)?|api[_ -]?(?:key|token|secret)|"
    r"(?:access|auth|bearer|refresh|client|private|account|session)[_ -]?(?:key|token|secret)|token|authorization)"
    r"[\"']?\s*(?:[:=]|=>|:=|\bis\b)\s*(?:(?:bearer|basic)\s+)?[\"'`]?(?P<value>[^\s\"'`,;<>]{6,})",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(?:Bearer|Basic)\s+(?P<value>[A-Za-z0-9+/=._~-]{16,})")
_ALLOWED = re.compile(
    r"\$?\{.*\}?|\$\w+|%\w+%|<.*|\*+|x{4,}.*|\.{3,}.*|(?:your|my|the|a|an|some|change|example|sample|"
    r"dummy|test|placeholder|redacted|"
    r"removed|none|null|true|false|undefined|required|optional|incorrect|correct|expired|invalid|missing|wrong|"
    r"secret|password|token)[\w.!?-]*|[a-z]+[.!?]?|https?://.*|[\d.,]+",
    re.IGNORECASE,
)
"""What stands where a secret would, and is none: a placeholder, a word, a number."""

_LOOSE = re.compile(
    r"(?<!base64,)(?<![\w/+=.:@-])(?=[\w+/=-]*\d)(?=[\w+/=-]*[a-z])"
    r"(?=[\w+/=-]*[A-Z])[A-Za-z0-9+/_-]{32,}={0,2}(?![\w/+=@-])"
)
_LOOSE_ENTROPY = 4.3
"""Bits per character above which a long mixed token is a key: random base64 has 5 to 6, names in code below 4."""
_NAMED_ENTROPY = 2.5


def secret_findings(text: str) -> Iterator[Finding]:
    """Findings of kind ``SECRET``, overlaps and all."""
    if not _HINT.search(text):
        return
    for match in _KEY_BLOCK.finditer(text):
        yield Finding(match.start(), match.end(), "SECRET", 1.0)
    for match in _VENDORS.finditer(text):
        yield Finding(match.start(), match.end(), "SECRET", 0.9)
    for value in {str(value) for plugin in _plugins() for value in plugin.analyze_string(text)}:
        for match in re.finditer(re.escape(value), text):
            yield Finding(match.start(), match.end(), "SECRET", 0.9)
    for match in (*_NAMED.finditer(text), *_BEARER.finditer(text)):
        value = match["value"].rstrip(".!?)]}")
        if not _ALLOWED.fullmatch(value) and _entropy(value) >= _NAMED_ENTROPY and _mixed(value):
            yield Finding(match.start("value"), match.start("value") + len(value), "SECRET", 0.7)
    for match in _LOOSE.finditer(text):
        if _entropy(match[0]) >= _LOOSE_ENTROPY:
            yield Finding(match.start(), match.end(), "SECRET", 0.6)


def _mixed(value: str) -> bool:
    """Two of: letters, digits, other characters. A single word or number is no secret."""
    kinds = (str.isalpha, str.isdigit, lambda character: not character.isalnum())
    return sum(any(map(kind, value)) for kind in kinds) > 1


def _entropy(value: str) -> float:
    from detect_secrets.plugins.high_entropy_strings import Base64HighEntropyString

    return float(Base64HighEntropyString().calculate_shannon_entropy(value))


@cache
def _plugins() -> list[Any]:
    from importlib import import_module

    named = (name.rsplit(".", 1) for name in _PLUGINS)
    return [getattr(import_module(f"detect_secrets.plugins.{module}"), kind)() for module, kind in named]
