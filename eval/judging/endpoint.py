"""An OpenAI-compatible endpoint: one question, one reply, and every refusal in plain words.

The key goes into the request's header alone: never into a message, a file or a log. Redirects are not followed.
"""

import re
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from merging.errors import UserError

KEY = "MERGESCOPE_JUDGE_KEY"  # the environment variable that holds the key
_MAX_TOKENS = 1024
_LONGEST_WAIT = 60.0  # seconds between two tries, whatever the endpoint asks for
_HERE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Endpoint:
    """`url` up to and without `/chat/completions`; `timeout` is seconds without a sign; `retries` come after a first
    try, each after twice the `pause` (seconds) of the one before.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    retries: int = 3
    pause: float = 1.0

    def check(self) -> None:
        """Raises a UserError for what must not be asked, or not with this key."""
        from huggingface_hub import constants

        if not (0 < self.timeout <= 3600 and 0 <= self.retries <= 20):
            raise UserError("E_USAGE", "--timeout must lie between 0 and 3600 seconds, --retries between 0 and 20.")
        try:
            parts = urlsplit(self.url)
            sound = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and parts.port != 0
        except ValueError:
            sound = False
        if not sound:
            raise UserError("E_USAGE", "--endpoint must be an http or https address without a name and a password.",
                            do=f"Write it as https://HOST/v1, and the key into {KEY}.")  # fmt: skip
        if self.key and not re.fullmatch(r"[!-~]+", self.key):
            raise UserError("E_JUDGE_KEY", f"{KEY} holds characters that no key has.", do="Copy it once more.")
        here = parts.hostname in _HERE
        if self.key and parts.scheme == "http" and not here:
            raise UserError("E_JUDGE_KEY", "a key is not sent over http, where anyone on the way can read it.",
                            where=self.url, do=f"Use https, or unset {KEY}.")  # fmt: skip
        if constants.HF_HUB_OFFLINE and not here:
            raise UserError("E_OFFLINE", "nothing may leave this machine: HF_HUB_OFFLINE is set.", where=self.url,
                            do="Unset it, or run a judge on this machine.")  # fmt: skip

    def ask(self, system: str, question: str) -> str:
        """The reply at temperature 0. Tries again after silence, a lost connection, 429 and faults of the endpoint."""
        import httpx2

        for left in range(self.retries, -1, -1):
            wait = self.pause * 2 ** (self.retries - left)
            try:
                response = self._post(system, question)
                if response.status_code == 200:
                    text = response.json()["choices"][0]["message"]["content"] or ""
                    return str.replace(text, self.key or "\0", "")  # whatever it repeats is kept
                error = _refused(response.status_code)
                if response.status_code != 429 and response.status_code < 500:
                    break
                told = response.headers.get("Retry-After", "")
                wait = max(wait, float(told)) if told.isdigit() else wait
            except httpx2.TimeoutException:
                error = f"the judge did not answer within {self.timeout:g} seconds", "Try again, or raise --timeout."
            except httpx2.TransportError:
                error = "the judge cannot be reached", "Check the address and the connection."
            except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, LookupError, TypeError, AttributeError):
                error = (
                    "the answer is not one of an OpenAI-compatible endpoint",
                    "Check --endpoint; it mostly ends in /v1.",
                )
            if left:
                time.sleep(min(wait, _LONGEST_WAIT))
        raise UserError("E_JUDGE", f"{error[0]}.", where=f"{self.model} at {self.url}", do=error[1],
                        kept="Every verdict so far is kept: the same command goes on after them.")  # fmt: skip

    def _post(self, system: str, question: str):
        import httpx2

        messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        asked = {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": _MAX_TOKENS}
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        url = self.url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
        with httpx2.Client(timeout=self.timeout, trust_env=urlsplit(url).hostname not in _HERE) as client:
            return client.post(url, json=asked, headers=headers)


def _refused(status: int) -> tuple[str, str]:
    """What a status means and what to do; the endpoint's own text is not passed on, for it may hold the key."""
    if status in (401, 403):
        return "the judge does not accept the key", f"Set {KEY} to a key that may use this model."
    if status == 404:
        return "there is no such model, or no such address", "Check --endpoint (it mostly ends in /v1) and --model."
    if status == 429:
        return "the judge was asked too often", "Try again later."
    if status >= 500:
        return f"the judge has a fault of its own ({status})", "Try again later."
    return f"the judge refused with code {status}", "Check that it takes OpenAI's chat format and temperature 0."
