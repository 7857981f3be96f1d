"""Boxes whose proxy reaches a world that a test has made."""

from dataclasses import dataclass, replace

from policy.effective import EffectiveLimits
from sandbox.egress_network import EgressNetwork
from sandbox.outcome import RunResult
from sandbox.request import RunRequest
from sandbox.spec import NetworkMode
from tests.policy.factories import destinations
from tests.sandbox.conftest import Place, limits_of, ran
from tests.sandbox.gvisor_versions import debians_runsc


def networked(*allowed: str, private: bool = False, **values: object) -> EffectiveLimits:
    """Limits with network; to anything public, where nothing is named."""
    listed = destinations(*allowed or ("public",))
    return limits_of(networking_allowed=True, network_allowlist=listed, network_private_allowed=private, **values)


def networked_request(code: str, language: str = "python", *, limits: EffectiveLimits) -> RunRequest:
    return RunRequest(language=language, code=code, limits=limits, person="somebody")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inhabited:
    """A place whose boxes reach a world."""

    place: Place

    @classmethod
    def by(cls, place: Place, world: EgressNetwork) -> "Inhabited":
        return cls(place=Place(equipment=replace(place.equipment, egress_network=lambda: world)))

    async def run(
        self, code: str, *allowed: str, language: str = "python", private: bool = False, **values: object
    ) -> RunResult:
        limits = networked(*allowed, private=private, **values)
        return await ran(self.place.equipment, networked_request(code, language, limits=limits))


def in_namespaces(place: Place, world: EgressNetwork, suite: str = "") -> Inhabited:
    """The place, whose boxes are in namespaces of their own, of this host's gVisor or of that of a suite of Debian."""
    runsc = debians_runsc(suite) if suite else place.equipment.runsc
    equipment = replace(place.equipment, runsc=runsc, network_way=NetworkMode.NAMESPACE)
    return Inhabited.by(Place(equipment=equipment), world)


def words_of(result: RunResult) -> list[str]:
    """What the record tells of each destination."""
    return [decision.words for decision in result.egress.decisions]
