"""2,000 requests to a policy server at 30 % malformed: no crash, the robot's answers right, every thread gone."""

import pytest

from .policy_server import MALFORMED_SHARE, attack_server

pytest.importorskip("websockets")


@pytest.mark.parametrize("seed", range(4))
def test_malformed_requests_disturb_nobody(seed):
    found = attack_server(500, seed)
    assert found.crashes == [] and found.wrong == []
    assert found.threads == []
    assert abs(found.malformed / found.requests - MALFORMED_SHARE) < 0.1
    assert found.answers["ProtocolError"] > 50 and found.answers["PolicyServerError"] > 0  # malformed, and busy
    assert found.answers["closed"] > 0 and found.answers["reset"] > 0
