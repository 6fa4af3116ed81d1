"""Who must sign a release of a product, and what their signatures amount to."""

from collections.abc import Collection

from pydantic import Field, model_validator

from data_contracts.errors import Refused
from data_contracts.frozen import Frozen
from data_contracts.spotchecks import SpotCheckRule


class ApprovalRule(Frozen):
    """This many distinct principals of the trust root, within this many hours of registration; and, where stated, the
    spot checks that come before.

    ``roles``: role -> its people. With them nobody else approves, and each role needs a person of its own. ``authors``
    make the product's candidates, and approve none. Whoever is in the trust root may reject.
    """

    signatures: int = Field(default=1, ge=1)
    expires_hours: float = Field(default=72, gt=0)
    spot_checks: SpotCheckRule | None = None
    roles: dict[str, tuple[str, ...]] | None = None
    authors: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _can_be_met(self) -> "ApprovalRule":
        if self.roles is None:
            return self
        people = {person for role in self.roles.values() for person in role}.difference(self.authors or ())
        if lacking := self.missing(people):
            raise ValueError(f"approval: nobody could ever approve: {'; '.join(lacking)} (authors sign for no role)")
        return self

    @property
    def needed(self) -> int:
        return max(self.signatures, len(self.roles or ()))

    def check_may_approve(self, principal: str) -> None:
        """Raises `Refused` for an author, and for who has no role where there are roles."""
        if principal in (self.authors or ()):
            raise Refused(f"{principal} is one of the product's authors (approval.authors): somebody else must approve")
        if self.roles is not None and not any(principal in people for people in self.roles.values()):
            raise Refused(f"wrong role: {principal} is in none of {', '.join(self.roles)} (approval.roles)")

    def missing(self, people: Collection[str]) -> list[str]:
        """What signatures of these people leave open, in words; nothing when they are enough."""
        short = [f"{len(people)} of {self.needed} signatures"] if len(people) < self.needed else []
        return short + [
            f"nobody signed as {role} ({', '.join((self.roles or {})[role])})" for role in self._open(people)
        ]

    def _open(self, people: Collection[str]) -> list[str]:
        """Roles without a person, where each person has one: as few as can be (Kuhn 1955, augmenting paths)."""
        roles, seated = self.roles or {}, dict[str, str]()

        def seat(role: str, asked: set[str]) -> bool:
            for person in roles[role]:
                if person in people and person not in asked:
                    asked.add(person)
                    if person not in seated or seat(seated[person], asked):
                        seated[person] = role
                        return True
            return False

        return [role for role in roles if not seat(role, set())]
