"""Notices by webhook, e-mail, chat and the rest of what Apprise speaks. Addresses are URLs that may hold passwords and
tokens: nothing here repeats them."""

import logging
import re
from collections.abc import Callable, Sequence
from functools import cached_property

from data_contracts.errors import BadInput, Unavailable


class AppriseNotifier:
    """``urls``: addresses as Apprise writes them, apart by spaces. ``pseudonym`` makes the part of an address's label
    that tells it from others of its kind, the same each time."""

    def __init__(self, urls: str, pseudonym: Callable[[str], str]) -> None:
        self._urls = urls.split()
        self._pseudonym = pseudonym

    @property
    def addresses(self) -> Sequence[str]:
        """``slack-4f1c09aa``: the kind, and a pseudonym."""
        return list(self._by_label)

    def send(self, address: str, title: str, text: str) -> None:
        """Raises `BadInput` for an address that Apprise does not know, `Unavailable` when that took no notice."""
        from apprise import Apprise

        logging.getLogger("apprise").disabled = True  # it writes addresses into its messages, secrets and all
        service = Apprise.instantiate(self._by_label[address], suppress_exceptions=True)
        if service is None:
            raise BadInput(
                f"ASSAY_NOTIFY: {address} is no address that Apprise knows: see its documentation for the kind"
            )
        try:
            taken = service.notify(body=text, title=title)
        except Exception as error:  # a plugin's own; its words may hold the address
            raise Unavailable(f"{address} did not take the notice ({type(error).__name__})") from None
        if not taken:
            raise Unavailable(f"{address} did not take the notice")

    @cached_property
    def _by_label(self) -> dict[str, str]:
        return {f"{_kind(url)}-{self._pseudonym(url)[:8]}": url for url in self._urls}


def _kind(url: str) -> str:
    found = re.match(r"([a-z0-9]+)://", url)
    return found[1] if found else "unknown"
