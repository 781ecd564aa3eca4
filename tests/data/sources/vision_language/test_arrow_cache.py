"""Tables on disk: how their batches lie, for those cost memory as long as a table is open."""

import pyarrow as pa
import pytest
from datasets import Dataset

from hfvla.data.samples.chat import ChatSample, ImageRef, chat_features, text_turn
from hfvla.data.sources.vision_language import arrow_cache
from hfvla.data.sources.vision_language.arrow_cache import write_rows


def samples(count, data=b""):
    images = (ImageRef(data=data),) if data else ()
    turns = text_turn("user", "What?", images=len(images)), text_turn("assistant", "That.")
    return (ChatSample(str(number), turns, images, group=str(number % 3)) for number in range(count))


def batches(path):
    with pa.memory_map(str(path)) as file:
        return [batch.num_rows for batch in pa.ipc.open_stream(file)]


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [1]), (4000, [4000]), (9001, [4000, 4000, 1001])])
def test_batches_have_thousands_of_rows(tmp_path, count, expected):
    assert write_rows(tmp_path / "rows.arrow", samples(count)) == count
    assert batches(tmp_path / "rows.arrow") == expected
    rows = Dataset.from_file(str(tmp_path / "rows.arrow"))
    assert rows.features == chat_features() and rows["id"][:] == [str(number) for number in range(count)]


def test_pictures_in_rows_make_them_shorter(tmp_path, monkeypatch):
    monkeypatch.setattr(arrow_cache, "_BATCH_BYTES", 1000)
    write_rows(tmp_path / "rows.arrow", samples(7, b"x" * 400))
    assert batches(tmp_path / "rows.arrow") == [3, 3, 1]
    rows = Dataset.from_file(str(tmp_path / "rows.arrow"))
    assert ChatSample.from_row(rows[6]).images[0].data == b"x" * 400


def test_reading_for_long_is_told(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO", "hfvla")
    monkeypatch.setattr(arrow_cache, "_TELL_S", -1)
    write_rows(tmp_path / "rows.arrow", samples(4001))
    assert "4,000 samples read so far" in caplog.text and "4,001 samples" in caplog.text
