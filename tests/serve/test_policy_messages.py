"""What travels between robot and server: arrays, pictures, observations, errors; and what is refused."""

import re

import msgpack
import numpy as np
import pytest

from hfvla.errors import CheckpointError, DataError, HfvlaError, MissingExtraError
from hfvla.serve.policy import PolicyFacts, PolicyServerError, PolicyStopped, ProtocolError
from hfvla.serve.policy.arrays import DTYPES, Jpeg, pack, unpack
from hfvla.serve.policy.messages import (
    error_from_message,
    error_to_message,
    facts_from_message,
    facts_to_message,
    observation_from_message,
    observation_to_message,
)

from .policy_fakes import Processor, observe


def travel(**values):
    return unpack(pack({"type": "test", **values}))


@pytest.mark.parametrize("kind", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_arrays_travel_to_the_bit(kind, shape):
    array = np.random.default_rng(0).integers(0, 200, shape).astype(kind)
    found = travel(array=array)["array"]
    assert found.dtype == array.dtype and found.shape == shape and np.array_equal(found, array)
    assert found.flags.writeable and found.flags.owndata


def test_other_byte_orders_and_slices_travel():
    big = np.arange(12, dtype=">f4").reshape(3, 4)
    assert np.array_equal(travel(array=big)["array"], big)
    assert np.array_equal(travel(array=big.T[::2])["array"], big.T[::2])
    odd = np.array([np.nan, -0.0, np.inf])
    assert travel(array=odd)["array"].tobytes() == odd.tobytes()


@pytest.mark.parametrize("value", [np.array([object()]), np.array(["a"]), np.zeros(2, np.complex64), {1, 2}, object()])
def test_other_types_are_not_sent(value):
    with pytest.raises(ProtocolError, match="to send"):
        pack({"type": "test", "value": value})


def array_message(kind, shape, content):
    return msgpack.packb({"type": "x", "a": msgpack.ExtType(1, msgpack.packb([kind, shape, content]))})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("text", "got 'text'"),
        (b"", "0 bytes"),
        (b"\xc1", "expected MessagePack"),
        (b"\x91" * 3000, "expected MessagePack"),  # lists in lists
        (msgpack.packb([1, 2]), "got 'list'; expected a mapping with a 'type'"),
        (msgpack.packb({"kind": "x"}), "a mapping with a 'type'"),
        (msgpack.packb({"type": "x"}) + b"\x00", "expected MessagePack"),
        (msgpack.packb({"type": "x", "a": [0] * 20_000}), "max_array_len"),
        (msgpack.packb({"type": "x", "a": msgpack.ExtType(7, b"")}), "extension type of a message; got 7"),
        (array_message("|O", [1], b"\0" * 8), re.escape("got '|O'")),
        (array_message("<M8[s]", [1], b"\0" * 8), "got '<M8"),
        (array_message("<f4", [3], b"\0" * 8), r"bytes of a <f4 array \[3\]; got 8; expected 12"),
        (array_message("<f4", [2**40, 2**40], b"\0" * 8), "got 8; expected 4835703278458516698824704"),
        (array_message("<f4", [-2, -1], b"\0" * 8), r"shape of an array in a message; got \[-2, -1\]"),
        (array_message("<f4", [True, 2], b"\0" * 8), "shape of an array"),
        (array_message("|u1", [1] * 5, b"\0"), "expected MessagePack|shape of an array"),
        (array_message(["<f4"], [2], b"\0" * 8), "type of an array"),
        (msgpack.packb({"type": "x", "a": msgpack.ExtType(1, b"\xc1")}), "expected MessagePack"),
        (msgpack.packb({"type": "x", "a": msgpack.ExtType(1, msgpack.packb([1]))}), "array in a message"),
        (msgpack.packb({"type": "x", "a": msgpack.ExtType(2, b"\xff\xd8\xff")}), "JPEG picture"),
        (msgpack.packb({"type": "x", "a": msgpack.ExtType(2, b"GIF89a")}), "JPEG picture"),
    ],
)
def test_malformed_bytes_are_refused(data, message):
    with pytest.raises(ProtocolError, match=message):
        unpack(data)


def test_pictures_as_jpeg(monkeypatch):
    rows = np.arange(64, dtype=np.uint8)
    smooth = np.stack(np.broadcast_arrays(rows[:, None] * 2, rows[None] * 3, np.uint8(90)), axis=-1)
    found = travel(picture=Jpeg(smooth, 95))["picture"]
    assert found.shape == smooth.shape and found.dtype == np.uint8
    assert np.abs(found.astype(int) - smooth).mean() < 3 and len(Jpeg(smooth, 95).encode()) < smooth.size / 3
    assert len(Jpeg(smooth, 95).encode()) > len(Jpeg(smooth, 30).encode())
    monkeypatch.setattr("hfvla.serve.policy.arrays._MAX_PIXELS", 1000)
    with pytest.raises(ProtocolError, match="got '64 x 64'; expected at most 1000 pixels"):
        travel(picture=Jpeg(smooth, 95))


@pytest.mark.parametrize("sensor", [True, False])
def test_observations_travel_to_the_bit(sensor):
    seen = observe(time_s=1.7e9 + 0.1, state=0.3, sensor=sensor)
    found = observation_from_message(travel(observation=observation_to_message(seen))["observation"])
    assert found.views.keys() == seen.views.keys() and (found.task, found.time_s) == (seen.task, seen.time_s)
    assert all(np.array_equal(found.views[name], seen.views[name]) for name in seen.views)
    assert found.state.dtype == np.float32 and np.array_equal(found.state, seen.state)
    if sensor:
        assert found.sensor.times_s.dtype == np.float64 and np.array_equal(found.sensor.times_s, seen.sensor.times_s)
        assert np.array_equal(found.sensor.values, seen.sensor.values)
    else:
        assert found.sensor is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": []}, "'views'.*got 'list'; expected dict"),
        ({"views": {"front": "x"}}, "view of an observation"),
        ({"views": {"front": np.zeros((2, 2, 4), np.uint8)}}, "view 'front'.*\\(2, 2, 4\\)"),
        ({"views": {"front": np.zeros((2, 2, 3), np.float32)}}, "float32"),
        ({"state": np.zeros((2, 2))}, "state of an observation"),
        ({"state": None}, "'state'.*got 'NoneType'; expected ndarray"),
        ({"task": 3}, "'task'"),
        ({"time_s": True}, "'time_s'.*got 'bool'"),
        ({"sensor": [1]}, "sensor of an observation; got 'list'"),
        ({"sensor": {"times_s": np.zeros(2, np.float32), "values": np.zeros((2, 1))}}, "'float32'"),
        ({"sensor": {"times_s": np.zeros(3), "values": np.zeros((2, 1))}}, r"\(3,\), \(2, 1\)"),
    ],
)
def test_parts_of_an_observation_that_do_not_fit(change, message):
    with pytest.raises(ProtocolError, match=message):
        observation_from_message(observation_to_message(observe()) | change)


def test_a_bad_picture_is_not_sent():
    bad = observe()
    bad.views["front"] = np.zeros((4, 6), dtype=np.uint8)
    with pytest.raises(DataError, match=r"view 'front': picture; got \('uint8', \(4, 6\)\)"):
        observation_to_message(bad)


def test_facts_travel():
    facts = PolicyFacts.of(Processor())
    assert facts == PolicyFacts(8, 3, 0.1, 10.0, ("front", "wrist"), 2)
    assert facts_from_message(travel(facts=facts_to_message(facts))["facts"]) == facts
    limited = PolicyFacts(1, 2, 0.0, 5.0, max_sensor_age_s=0.1)
    assert facts_from_message(facts_to_message(limited)) == limited and limited.views is None
    with pytest.raises(ProtocolError, match="'horizon'"):
        facts_from_message({})


@pytest.mark.parametrize(
    "error",
    [
        DataError("missing view", where="front", got=["wrist"], expected="front, wrist", fix="Add it."),
        DataError("shape", got=(2, 3), expected=(3, 3)),
        CheckpointError("broken"),
        HfvlaError("other", got=None, expected=0.5),
        PolicyStopped("stale", got=0.3, expected="0.1 s"),
        MissingExtraError("mujoco", "sim", "the simulator"),
        ProtocolError("id", got=3),
    ],
)
def test_errors_arrive_as_they_were(error):
    found = error_from_message(travel(error=error_to_message(error))["error"])
    assert type(found) is type(error) and str(found) == str(error)
    assert (found.what, found.where, found.fix) == (error.what, error.where, error.fix)
    assert repr(found.got) == repr(error.got)
    if isinstance(error, MissingExtraError):
        assert (found.package, found.extra) == ("mujoco", "sim")


def test_the_safe_action_arrives_and_strange_errors_are_wrapped():
    stop = error_to_message(PolicyStopped("stale", safe_action=[0.0, 1.0]))
    assert error_from_message(travel(error=stop)["error"]).safe_action.tolist() == [0.0, 1.0]
    assert error_from_message(error_to_message(PolicyStopped("stale"))).safe_action is None
    found = error_from_message(error_to_message(KeyError("gripper")))
    assert type(found) is PolicyServerError and "KeyError: 'gripper'" in str(found)

    class OwnError(DataError):
        pass

    assert type(error_from_message(error_to_message(OwnError("x")))) is DataError
    with pytest.raises(ProtocolError, match="class of an error; got 'SystemExit'"):
        error_from_message({"class": "SystemExit", "what": "x"})
