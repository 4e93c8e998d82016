"""What must never be read in a log: tickets, tokens, and whatever an `Authorization` field holds."""

import re

REDACTED = "***"


def _encoded(word: str) -> str:
    """A word of a query as a pattern: any of its letters may be percent-encoded."""
    return "".join(f"(?:{letter}|%{ord(letter):02x}|%{ord(letter.upper()):02x})" for letter in word)


# None of these can go back over what it has read (possessive where something follows), so each reads a text once.
_SECRETS = (
    # ?ticket=…, also inside another address (%3D), and {"ticket": "…"}, also inside a JSON string (\").
    re.compile(rf"(?i)({_encoded('ticket')}(?:=|%3d))[^\s&;#\"'<>\\]+"),
    re.compile(r"""(?i)(\bticket\\?["']\s*+:\s*+b?\\?["'])[^"'\\]+"""),
    # Authorization: … to the end of the line or of the quotes, as a header, an item of a dict, or a pair of bytes.
    re.compile(r"""(?i)(authorization\\?["']?\s*+[:=,]\s*+b?\\?["'])[^"'\\\r\n]+"""),
    re.compile(r"""(?i)(authorization\s*+[:=][ \t]*+)(?!b?\\?["'])(?:=\\?"[^"\r\n]*+"?|[^\r\n"'=]++|=)++"""),
    re.compile(r"(?i)(\bbearer(?:\s|%20|\+)++)[a-z0-9._~+/=%-]+"),
    # A JSON Web Token wherever it stands: its first part is always `{"…` in base64.
    re.compile(r"(?<![A-Za-z0-9_-])()eyJ[A-Za-z0-9_-]*+\.[A-Za-z0-9_-]++(?:\.[A-Za-z0-9_=-]*+)?"),
)


def redacted(text: str) -> str:
    """A text for a log, with `***` in place of tickets, Bearer tokens, JSON Web Tokens and `Authorization` values.

    It would rather take out a harmless word ("bearer of news") than leave a secret in. Time grows with the length of
    the text and with nothing else.
    """
    for secret in _SECRETS:
        text = secret.sub(rf"\g<1>{REDACTED}", text)
    return text
