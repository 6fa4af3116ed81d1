"""Labelled sentences with network addresses, links, keys and secrets, all drawn at random and valid for nobody, and
sentences that only look as if they held some."""

import random
import string
from collections.abc import Callable

from pipelines.stages.data.certificate import Labelled
from pipelines.stages.data.protocols import Finding

_SENTENCES = (
    "Please check {} before the release.",
    "It came from {} last night, see the log.",
    "config: {}",
    "Hi team,\nI pasted {} by mistake, can you rotate it?",
    'He wrote "{}" on the board',
    "The value is {}; keep it to yourself.",
    "{} was in the ticket.",
)
LOOK_ALIKES = (
    "Upgrade from version 10.4.0.1 to v2.31.7 today.",
    "The build 2024.11.3 has md5 9e107d9d372bb6826bd81d3542a419d6.",
    "Commit 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12 breaks it.",
    "sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 is the empty file.",
    "Request 123e4567-e89b-12d3-a456-426614174000 timed out.",
    "Order 2024-000-184-773 and invoice INV-2024-000817 are paid.",
    "Set your password: <your password here>, never 'changeme'.",
    "The token is ${API_TOKEN} in the pipeline.",
    "password: required, at least eight characters",
    "Read docs/getting_started/InstallationGuideForBeginners before you call initialize_tokenizer_v2().",
    "Tracking number 1Z999AA10123456784 arrives on Monday.",
    "ISBN 978-3-16-148410-0 is out of print.",
    "The ratio is 1:2:3 at 12:30:45.",
    "Your secret santa is waiting, the password manager is free.",
)


def generated(count: int = 40, seed: int = 7) -> list[Labelled]:
    """``count`` sentences of each kind of value, every sentence with one of them."""
    draw = random.Random(seed)
    rows = []
    for kind, makers in _VALUES.items():
        for make in makers:
            for _ in range(count):
                value = make(draw)
                before, after = draw.choice(_SENTENCES).split("{}")
                span = Finding(len(before), len(before) + len(value), kind)
                rows.append(Labelled(f"{before}{value}{after}", (span,)))
    return rows


def _of(alphabet: str, length: int) -> Callable[[random.Random], str]:
    return lambda draw: "".join(draw.choices(alphabet, k=length))


_ALNUM = string.ascii_letters + string.digits
_UPPER = string.ascii_uppercase + string.digits
_HEX = "0123456789abcdef"


def _after(prefix: str, alphabet: str, length: int) -> Callable[[random.Random], str]:
    return lambda draw: prefix + _of(alphabet, length)(draw)


def _ipv4(draw: random.Random) -> str:
    return ".".join(str(draw.randint(1, 254)) for _ in range(4))


def _ipv6(draw: random.Random) -> str:
    groups = [f"{draw.randint(1, 0xFFFF):x}" for _ in range(8)]
    return ":".join(groups) if draw.random() < 0.5 else f"{':'.join(groups[:3])}::{':'.join(groups[6:])}"


def _url(draw: random.Random) -> str:
    scheme, host = draw.choice(("https", "http", "ftp")), _of(string.ascii_lowercase, 9)(draw)
    top = draw.choice(("com", "org", "io", "co.uk", "example"))
    return f"{scheme}://{host}.{top}/{_of(string.ascii_lowercase, 5)(draw)}?page={draw.randint(1, 99)}"


def _bare_url(draw: random.Random) -> str:
    return f"www.{_of(string.ascii_lowercase, 9)(draw)}.{draw.choice(('com', 'org', 'net'))}"


def _with_password(draw: random.Random) -> str:
    scheme = draw.choice(("https", "postgresql", "redis", "amqp", "mongodb+srv"))
    return f"{scheme}://svc:{_of(_ALNUM, 12)(draw)}@db.{_of(string.ascii_lowercase, 6)(draw)}.net:5432/main"


def _with_token(draw: random.Random) -> str:
    return f"https://api.{_of(string.ascii_lowercase, 6)(draw)}.com/v1?access_token={_of(_ALNUM, 24)(draw)}"


def _key_block(draw: random.Random) -> str:
    kind = draw.choice(("RSA ", "EC ", "OPENSSH ", ""))
    body = "\n".join(_of(_ALNUM + "+/", 64)(draw) for _ in range(3))
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{body}\n-----END {kind}PRIVATE KEY-----"


def _jwt(draw: random.Random) -> str:
    return f"eyJhbGciOiJIUzI1NiJ9.eyJ{_of(_ALNUM, 40)(draw)}.{_of(_ALNUM, 43)(draw)}"


_VALUES: dict[str, tuple[Callable[[random.Random], str], ...]] = {
    "IP_ADDRESS": (_ipv4, _ipv6),
    "URL": (_url, _bare_url),
    "URL_SECRET": (_with_password, _with_token),
    "SECRET": (
        _after("AKIA", _UPPER, 16),
        _after("ghp_", _ALNUM, 36),
        _after("github_pat_", _ALNUM, 60),
        _after("glpat-", _ALNUM, 20),
        _after("xoxb-123456789012-123456789012-", _ALNUM, 24),
        _after("sk_live_", _ALNUM, 24),
        _after("sk-proj-", _ALNUM, 48),
        _after("sk-ant-api03-", _ALNUM, 80),
        _after("AIza", _ALNUM, 35),
        _after("hf_", _ALNUM, 34),
        _after("npm_", _ALNUM, 36),
        _after("pypi-AgEIcHlwaS5vcmc", _ALNUM, 70),
        _after("dop_v1_", _HEX, 64),
        _after("shpat_", _HEX, 32),
        _after("SK", _HEX, 32),
        lambda draw: f"SG.{_of(_ALNUM, 22)(draw)}.{_of(_ALNUM, 43)(draw)}",
        lambda draw: f"{draw.randint(10**8, 10**9 - 1)}:AA{_of(_ALNUM, 33)(draw)}",
        _jwt,
        _key_block,
    ),
}
