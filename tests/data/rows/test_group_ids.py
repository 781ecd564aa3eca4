"""Integer ids of groups."""

import subprocess
import sys

from hfvla.data.rows.group_ids import NO_GROUP, group_ids


def test_the_same_name_has_the_same_id_and_others_another():
    ids = group_ids(["0839", "0001", "0839", ""])
    assert ids[0] == ids[2] != ids[1] and ids[3] == NO_GROUP
    assert len(set(group_ids(f"{n:04d}" for n in range(2000)))) == 2000
    assert all(0 <= number < 2**63 for number in ids[:3])


def test_another_process_gives_the_same_id():
    code = "from hfvla.data.rows.group_ids import group_ids; print(group_ids(['0839'])[0])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) == group_ids(["0839"])[0]
