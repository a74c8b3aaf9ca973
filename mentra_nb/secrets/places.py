"""The places where a secret stands without its name: headers, addresses, flags of certain programs, key files.

Each takes linear time: what an expression reads without a limit is not followed by a condition, and every other part is
limited.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from mentra_nb.secrets.late import late
from mentra_nb.secrets.names import BLANK, END, QUOTE
from mentra_nb.secrets.values import is_argument, is_header, is_key, is_password, is_strong
from mentra_nb.secrets.vendors import looks_random


class Place(NamedTuple):
    """What a text with such a place holds in lower case, the expression, and whether its group `value` is a secret."""

    hints: tuple[str, ...]
    expression: re.Pattern[str]
    is_secret: Callable[[str], bool]


def _always(_: str) -> bool:
    return True


def _userinfo(value: str) -> bool:
    user, _, password = value.partition(":")
    return is_password(password) if password else looks_random(user)


def _strong(value: str) -> bool:
    return is_strong(value, quoted=False)


def _place(hints: str, expression: str, is_secret: Callable[[str], bool] = _always) -> Place:
    return Place(tuple(hints.split("␣")), late(expression, re.ASCII), is_secret)


_GAP = r"\b[^\n|;&]{0,160}?[\s\"']"
_AFTER = r"(?:\s|=|\\?[\"'],\s?(?=\\?[\"']))?"
_WORD = rf"(?:{QUOTE})?(?P<value>[^\s\"'`\\]{{1,4096}})"
_FOR_P = r"sshpass|useradd|usermod|(?:docker|podman|skopeo|buildah|helm registry|oras) login|mongo\w{0,8}"
_COMMANDS_P = "sshpass␣useradd␣usermod␣ login␣mongo␣twine␣az acr␣7z␣influx␣psexec␣svn␣xfreerdp"
_FOR_P += r"|twine|az\s(?:login|acr)|7z\w?|influx|psexec|svn|xfreerdp"

PLACES: tuple[Place, ...] = (
    # ---- keys of several lines
    _place(
        "private key",
        r"(?P<value>-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}"
        r"(?s:.*?)(?:-{4,5} ?END [A-Z0-9 ]{0,40}-{4,5}|\Z))",
    ),
    _place("private key-", r"(?<![\w+/=\s\\])(?P<value>[\w+/=\s\\]{16,}+)-----END [A-Z0-9 ]{0,40}PRIVATE KEY"),
    _place("b3blbnnzac1rzxktdje", r"(?<![\w+/])(?P<value>b3BlbnNzaC1rZXktdjE[\w+/=\s]{16,})"),
    _place("private-lines", r"Private-Lines: \d+(?:\s|\\n)(?P<value>(?:[\w+/=]{1,90}+(?:\s|\\n)?){1,400})"),
    # ---- headers
    _place(
        "authorization␣cookie",
        rf"(?i:authorization|cookie){END}{BLANK}[:=]{BLANK}(?:[fbru]?\\{{0,3}}[\"'`])?(?P<value>[^\r\n\"'`\\]+)",
        is_header,
    ),
    _place(
        "bearer",
        r"(?i:\bbearer)(?:\s|%20|\+|\\t){1,9}(?P<value>(?=[\w.~+/=-]{0,200}\d)[\w.~+/=-]{8,}|[\w.~+/=-]{20,})",
    ),
    _place(
        "basic ",
        r"(?i:\bbasic )(?P<value>[A-Za-z0-9+/]{8,}={0,2})",
        lambda value: value.endswith("=") or looks_random(value),
    ),
    _place("-b␣--cookie", rf"(?:\s-b|--cookie)[ =](?:{QUOTE})?(?P<value>[\w.-]{{1,40}}=[^\s\"'\\]{{8,}})"),
    _place("sessid=␣sessionid=␣connect.sid=", r"(?i:sess(?:ion)?id|connect\.sid)=(?P<value>[^\s;&\"'\\]{12,})"),
    # ---- addresses
    _place("@", r"(?<=://)(?P<value>[^\s/:@\"'`<>\\]{0,100}:[^\s/\"'`<>\\]{1,300})@", _userinfo),
    _place(
        "@",
        r"(?<=://)(?P<value>[^\s/:@\"'`<>\\]{0,100}:(?!\d{1,5}/)[^\s/@\"'`<>\\]{1,200}/[^\s@\"'`<>\\]{1,200})@",
        _userinfo,
    ),
    _place("@", r"(?<=://)(?P<value>[^\s/:@\"'`<>?#\\]{16,300})@", _userinfo),
    _place(
        "?␣&",
        r"[?&](?i:(?:[\w-]{0,30}[-_.])?(?:key|code|hash|hmac|ticket|credential|assertion))=(?P<value>[^&\s\"'`#<>\\]{12,})",
        looks_random,
    ),
    _place("auth", r"[\"']auth\\?[\"']:\s{0,3}\\?[\"'](?P<value>[\w+/=]{8,})"),
    # ---- flags and commands
    _place("-pass", r"-pass(?:in|out)?\s{1,3}pass:(?P<value>[^\s\"'\\]{1,})", is_argument),
    _place(
        "-u␣--proxy-user␣--auth",
        rf"[\s\"'](?:-u|--user|--proxy-user|--auth|-U)(?:[ =]|\\?[\"'],\s?)?(?:{QUOTE})?[\w.@+-]{{0,64}}[:%]"
        r"(?P<value>[^\s\"'\\]{1,})",
        is_password,
    ),
    _place(_COMMANDS_P, rf"\b(?:{_FOR_P}){_GAP}-p{_AFTER}{_WORD}", is_argument),
    _place("mysql␣mariadb", rf"\b(?:mysql|mariadb)\w{{0,10}}{_GAP}-p{_WORD}", is_argument),
    _place("mysql␣mariadb", rf"\b(?:mysql|mariadb)\w{{0,10}}{_GAP}-p{_AFTER}{_WORD}", _strong),  # of a mistaken user
    _place("redis-cli␣valkey-cli", rf"\b(?:redis-cli|valkey-cli){_GAP}-a{_AFTER}{_WORD}", is_argument),
    _place(
        'http -a␣https -a␣http "␣http -␣https -␣xh ',
        rf"\b(?:https?|xh) [^\n|;&]{{0,160}}?-a{_AFTER}(?:{QUOTE})?[\w.@+-]{{1,64}}:(?P<value>[^\s\"'\\]{{1,}})",
        is_password,
    ),
    _place("ldap␣security", rf"\b(?:ldap\w{{1,10}}|security){_GAP}-w{_AFTER}{_WORD}", is_argument),
    _place("zip␣sqlcmd␣bcp", rf"\b(?:zip|unzip|sqlcmd|bcp){_GAP}-P{_AFTER}{_WORD}", is_argument),
    _place("plink␣pscp␣psftp", rf"\b(?:plink|pscp|psftp){_GAP}-pw{_AFTER}{_WORD}", is_argument),
    _place(
        "htpasswd", r"\bhtpasswd\s(?:-\w{1,6}\s){0,4}[\w./-]{1,80}\s\S{1,64}\s(?P<value>[^\s\"'\\]{1,})", is_argument
    ),
    _place(
        "auth",
        r"(?i:auth\w{0,6})\s?=?\s?\(\s?\\?[\"'][^\"'\\\n]{1,64}\\?[\"'],\s?\\?[\"'](?P<value>[^\"'\\\n]{3,200})\\?[\"']",
        is_argument,
    ),
    _place(
        "sqlplus␣thin:␣oci",
        r"(?:\bsqlplus\s{1,3}(?:-\w{1,2}\s)?\\?[\"']?|:(?:thin|oci8?):)\w{1,30}/(?P<value>[^@\s\"'\\]{1,200})@",
        is_argument,
    ),
    _place(
        "chpasswd",
        r"[\s\"'][\w.-]{1,32}:(?P<value>[^\s\"'|\\]{1,80})\\?[\"']?\s{0,5}\|\s{0,5}(?:sudo\s{1,3})?chpasswd",
        is_argument,
    ),
    _place(
        "echo␣printf",
        rf"\b(?:echo|printf)\s{{1,3}}(?:-n\s|(?:{QUOTE})?%s(?:\\\\?n)?(?:{QUOTE})?\s)?(?:{QUOTE})?(?P<value>[^\s\"'|\\]{{1,200}})"
        rf"(?:\\?[\"'])?\s{{0,3}}\|\s{{0,3}}(?:[^\n|]{{0,80}}(?:-stdin|--with-token|--passphrase-fd)|sudo -S)",
        is_argument,
    ),
    _place("login ", rf"\blogin\s{{1,3}}{_WORD}", lambda value: is_key(value, quoted=True) and looks_random(value)),
    _place(
        "secret",
        rf"\bsecrets? (?:set|put|create|add|update){_GAP}(?:-b|--(?:body|value|secret-string)){_AFTER}{_WORD}",
        is_argument,
    ),
    _place(
        "rabbitmqctl␣http-basic.␣pypi-token.",
        r"\b(?:(?:rabbitmqctl[^\n|;&]{0,80}? (?:add_user|change_password)|config http-basic\.[\w-]{1,60})\s\S{1,64}"
        rf"|config pypi-token\.[\w-]{{1,60}})\s{{1,3}}{_WORD}",
        is_argument,
    ),
    _place("net use", rf"\b(?i:net use){_GAP}/(?i:user):\S{{1,64}}\s{{1,3}}{_WORD}", is_argument),
    _place("lftp", rf"\blftp{_GAP}-u{_AFTER}(?:{QUOTE})?[\w.@+-]{{1,64}},(?P<value>[^\s\"'\\]{{1,}})", is_argument),
    _place("snmp", rf"\bsnmp\w{{1,10}}{_GAP}-[AX]{_AFTER}{_WORD}", is_argument),
    _place("<<<", rf"(?:--with-token|-stdin|passwd)\s[^\n<]{{0,40}}<<<\s?{_WORD}", is_argument),
    _place("securestring", rf"(?i:ConvertTo-SecureString)\s(?:-String\s)?{_WORD}", is_argument),
    # ---- files and languages of programs
    _place(
        "login␣account␣user",
        rf"\b(?i:login|account|user(?:name)?)\s{{1,9}}[^\s\\]{{1,80}}(?:\s|\\n){{1,9}}(?i:pass(?:w(?:or)?d)?)\s{{1,9}}{_WORD}",
        _strong,
    ),
    _place(
        "machine␣default",
        rf"\b(?:machine\s{{1,9}}[^\s\\]{{1,80}}|default)(?:\s|\\n){{1,9}}login\s{{1,9}}[^\s\\]{{1,80}}(?:\s|\\n){{1,9}}password\s{{1,9}}{_WORD}",
        is_argument,
    ),
    _place(
        "requirepass␣masterauth␣bindpw␣wpa_passphrase",
        rf"\b(?i:requirepass|masterauth|bindpw|wpa_passphrase\s\S{{1,32}})\s{{1,9}}{_WORD}",
        is_argument,
    ),
    _place(
        "identified␣password␣passphrase",
        r"\b(?i:identified (?:with \w{1,40} )?by|password|passphrase|set password for \S{1,60} =)"
        r"(?:\s{1,3}|\s?\(\s?)\\?[\"'](?P<value>[^\"'\\\r\n]{1,200})\\?[\"']",
        lambda value: is_argument(value) and " " not in value,
    ),
    _place(
        ":543␣:643␣:*:",
        r"(?m)(?:^|\\n|[\"'])[\w.*-]{1,80}:(?:\d{4,5}|\*):(?:[a-z_][\w.-]{0,60}|\*):[\w.*@-]{1,60}:(?P<value>[^\s:\"'\\]{3,})",
        is_argument,
    ),
    _place(
        "akia␣asia",
        r"(?:AKIA|ASIA)[A-Z0-9]{16}\\?[\"']?(?:[\s,;:|]|\\n){1,9}\\?[\"']?(?P<value>[A-Za-z0-9+/]{40})(?![A-Za-z0-9+/])",
    ),
    _place("auth ", r"(?i:\bAUTH) (?P<value>(?=\S{0,200}\d)\S{8,})\r?\n", is_argument),
)
