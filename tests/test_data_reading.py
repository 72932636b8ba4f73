"""Frames from every form of file: the same content, types and fingerprint; bad files refused."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from margins.data import read_frame, read_image, stream_frames
from margins.errors import MarginsError

SHARED = Path(__file__).parents[1].parent / "shared" / "data"
GOOD = "text,size,code,label\nhello there,1,007,a\nbye,2,010,b\n,3,020,a\n"


def written(folder: Path, content: str | bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def mixed_table() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame({
        "size": rng.integers(-5, 5, 40),
        "cost": [*rng.normal(size=38), None, -0.0],
        "text": [f"words, with \"quotes\"\nand breaks {k}" if k % 3 else None for k in range(40)],
        "label": ["é" if k % 2 else "b" for k in range(40)],
    })  # fmt: skip


def all_forms(table: pl.DataFrame, folder: Path) -> dict[str, object]:
    table.write_csv(folder / "t.csv")
    table.write_csv(folder / "t.tsv", separator="\t")
    (folder / "t.csv.gz").write_bytes(gzip.compress((folder / "t.csv").read_bytes()))
    table.write_parquet(folder / "t.parquet")
    table.write_ndjson(folder / "t.jsonl")
    files = {p.name: p for p in folder.iterdir()}
    frames = {"polars": table, "pandas": table.to_pandas(), "dict": table.to_dict(as_series=False)}
    return {**files, **frames, "arrow": table.to_arrow()}


def test_the_same_content_has_the_same_types_and_fingerprint_in_every_form(tmp_path: Path):
    forms = all_forms(mixed_table(), tmp_path)
    frames = {name: read_frame(source) for name, source in forms.items()}
    assert len(frames) == 9
    assert len({f.fingerprint for f in frames.values()}) == 1
    # pandas keeps no integers beside missing ones; here none is missing, so all types agree
    assert len({str(f.table.schema) for f in frames.values()}) == 1
    assert frames["t.csv"].table.dtypes == [pl.Int64, pl.Float64, pl.String, pl.String]


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.rename({"size": "sizes"}),
        lambda t: t[::-1],
        lambda t: t[:-1],
        lambda t: t.with_columns(size=pl.col("size").cast(pl.String)),
        lambda t: t.with_columns(cost=pl.col("cost") + 1e-12),
        lambda t: t.with_columns(cost=pl.col("cost").fill_null(0.0)),
        lambda t: t.with_columns(label=pl.col("label").str.replace("é", "e")),
        lambda t: t.select(reversed(t.columns)),
    ],
)
def test_any_change_of_names_types_cells_or_order_changes_the_fingerprint(change):
    assert read_frame(mixed_table()).fingerprint != read_frame(change(mixed_table())).fingerprint


def test_text_that_moves_from_one_cell_to_the_next_changes_the_fingerprint():
    prints = {read_frame({"a": cells}).fingerprint for cells in (["ab", "c"], ["a", "bc"], ["abc", ""])}
    lists = {read_frame({"a": c}).fingerprint for c in ([["a"], ["b"]], [["a", "b"], []], [[], ["a", "b"]])}
    assert (len(prints), len(lists)) == (3, 3)


def test_reading_leaves_the_callers_arrays_and_frames_alone():
    table, array = mixed_table(), np.array([[-0.0, np.pi]])
    before = table.clone()
    read_frame(table)
    read_frame({"e": array})
    assert table.equals(before)
    assert np.signbit(array[0, 0])


def test_a_csv_column_is_numeric_only_when_every_filled_cell_is_a_number(tmp_path: Path):
    rows = [f"{k},{k}.5,0{k},{'n/a' if k == 99 else k},{'' if k % 2 else k},{10**19 + k}" for k in range(100)]
    frame = read_frame(written(tmp_path, "i,f,code,odd,gaps,long\n" + "\n".join(rows)))
    types = dict(frame.table.schema)
    assert types == {
        "i": pl.Int64, "f": pl.Float64, "code": pl.String, "odd": pl.String, "gaps": pl.Int64,
        "long": pl.String,
    }  # fmt: skip
    assert frame.table["code"][5] == "05"
    assert frame.table["gaps"].null_count() == 50
    assert [n for n in frame.notes if "'odd' looks numeric but row 100 holds 'n/a'" in n]


def test_separators_blank_rows_and_nameless_columns_are_told(tmp_path: Path):
    frame = read_frame(written(tmp_path, "\ufeff;a;b\r\n1;x;2,5\r\n;;\r\n2;y;3\r\n"))
    assert frame.names == ["column 1", "a", "b"]
    assert len(frame) == 2
    assert all(any(word in n for n in frame.notes) for word in ("semicolons", "blank", "without a name"))
    tabs = read_frame(written(tmp_path, "a\tb,c\n1\t2\n", "t.tsv"))
    assert tabs.names == ["a", "b,c"]


def test_json_lines_keep_lists_flatten_records_and_make_even_lists_of_floats_embeddings(tmp_path: Path):
    lines = [{"l": ["a"], "e": [0.5, 1.0], "r": {"x": 1}}, {"l": [], "e": [1, 2.5], "r": {"x": None}}]
    frame = read_frame(written(tmp_path, "\n\n".join(map(json.dumps, lines)), "t.ndjson"))
    assert dict(frame.table.schema) == {
        "l": pl.List(pl.String), "e": pl.Array(pl.Float32, 2), "r.x": pl.Int64,
    }  # fmt: skip
    assert frame.floats("e").tolist() == [[0.5, 1.0], [1.0, 2.5]]
    assert [n for n in frame.notes if "records" in n]


def test_arrays_become_embeddings_images_and_plain_columns(tmp_path: Path):
    rng = np.random.default_rng(0)
    arrays = {
        "e": rng.normal(size=(4, 3)), "grey": rng.integers(0, 255, (4, 5, 6), dtype=np.uint8),
        "rgb": rng.integers(0, 255, (4, 5, 6, 3), dtype=np.uint8), "y": np.arange(4, dtype=">i2"),
        "name": np.array(["a", "b", "c", "d"]), "one": np.array(7),
    }  # fmt: skip
    np.savez(tmp_path / "t.npz", **arrays)
    frame = read_frame(tmp_path / "t.npz")
    assert frame.table["grey"].to_numpy().tolist() == arrays["grey"].tolist()
    assert frame.table["rgb"].dtype == pl.Array(pl.UInt8, (5, 6, 3))
    assert frame.floats("e").numpy() == pytest.approx(arrays["e"], abs=1e-6)
    assert frame.table["y"].to_list() == [0, 1, 2, 3]
    assert [n for n in frame.notes if n.endswith("left out: one.")]
    np.save(tmp_path / "e.npy", arrays["e"])
    assert read_frame(tmp_path / "e.npy").names == ["embedding"]
    joined = read_frame(written(tmp_path, GOOD + "x,4,5,b\n"), embeddings=tmp_path / "e.npy")
    assert joined.names[-1] == "embedding"
    assert joined.fingerprint != read_frame(tmp_path / "rows.csv").fingerprint


def test_idx_images_are_joined_with_the_labels_beside_them(tmp_path: Path):
    images = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = written(tmp_path, gzip.compress(idx(images)), "train-images-idx3-ubyte.gz")
    assert read_frame(path).names == ["image"]
    written(tmp_path, idx(np.array([7, 9], np.uint8)), "train-labels-idx1-ubyte")
    frame = read_frame(path)
    assert frame.table["label"].to_list() == [7, 9]
    assert frame.table["image"].to_numpy().tolist() == images.tolist()
    assert [n for n in frame.notes if "train-labels-idx1-ubyte" in n]
    written(tmp_path, idx(np.array([7], np.uint8)), "train-labels-idx1-ubyte")
    with pytest.raises(MarginsError, match="as many labels"):
        read_frame(path)


def test_a_folder_of_images_has_labels_from_its_sub_folders_and_the_fingerprint_of_its_bytes(tmp_path: Path):
    for name, colour in (("cat/1.png", 10), ("cat/2.JPG", 20), ("dog/1.png", 30)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 3), colour).save(tmp_path / name)
    written(tmp_path, "x", "read.me")
    frame = read_frame(tmp_path)
    assert frame.table.to_dict(as_series=False) == {
        "image": ["cat/1.png", "cat/2.JPG", "dog/1.png"], "label": ["cat", "cat", "dog"],
    }  # fmt: skip
    assert frame.folder == tmp_path
    assert [n for n in frame.notes if n.startswith("1 files that are no images")]
    Image.new("L", (4, 3), 31).save(tmp_path / "dog/1.png")
    assert read_frame(tmp_path).fingerprint != frame.fingerprint
    listed = written(tmp_path, "file,y\ncat/1.png,a\ndog/9.png,b\n")
    notes = read_frame(listed).notes
    assert [n for n in notes if "names 1 images that are not in" in n and "dog/9.png" in n]


def test_folders_named_as_roles_become_the_split(tmp_path: Path):
    for name in ("train/cat/1.png", "test/dog/1.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("L", (2, 2)).save(tmp_path / name)
    table = read_frame(tmp_path).table
    assert table.select("split", "label").rows() == [("test", "dog"), ("train", "cat")]


BAD = {
    "empty.csv": ("", "an empty file"),
    "header.csv": ("a,b\n", "only the header a, b"),
    "latin.csv": (b"a,b\n1,2\n\xe9,3\n", "0xe9 in line 3"),
    "long.csv": ("a,b\n1,2\n1,2,3\n", "3 in line 3"),
    "short.csv": ("a,b\n1,2\n\n3\n", "1 in line 4"),
    "quote.csv": ('a,b\n1,"2\n3,4\n', "quote cells"),
    "twice.csv": ("a,b,a\n1,2,3\n", "'a' 2 times"),
    "nulls.csv": ("a,b\n,\n,\n", "only the header"),
    "cut.csv.gz": (gzip.compress(GOOD.encode() * 50, mtime=0)[:-20], "broken"),
    "plain.csv.gz": (GOOD, "take .gz off"),
    "empty.jsonl": ("\n", "an empty file"),
    "broken.jsonl": ('{"a": 1}\n\n{"a": \n', "line 3, which is no JSON"),
    "nan.jsonl": ('{"a": 1}\n{"a": NaN}\n', "line 2, which is no JSON"),
    "list.jsonl": ('{"a": 1}\n[2]\n', "line 2, which is no object"),
    "clash.jsonl": ('{"a": 1}\n{"a": {"b": 2}}\n', "do not fit together"),
    "latin.jsonl": (b'{"a": 1}\n{"a": "\xe9"}\n', "line 2"),
    "empty.parquet": ("", "an empty file"),
    "text.parquet": (GOOD, "other content"),
    "cut.parquet": (b"PAR1" + bytes(50), "cut short"),
    "bent.parquet": (b"PAR1" + bytes(50) + b"PAR1", "a broken one"),
    "bent.npz": (b"PK\x03\x04" + bytes(40), "a broken one"),
    "bent.npy": (b"\x93NUMPY" + bytes(10), "a broken one"),
    "x-images-idx3-ubyte": (idx(np.zeros((2, 3, 4), np.uint8))[:-1], "23 bytes"),
    "y-idx1-ubyte": (b"abc", "other content"),
    "rows.xlsx": ("x", "the ending '.xlsx'"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_file_that_cannot_be_used_is_refused_by_name_with_where(name: str, tmp_path: Path):
    content, words = BAD[name]
    with pytest.raises(MarginsError) as refused:
        read_frame(written(tmp_path, content, name))
    assert words in str(refused.value)
    assert name in str(refused.value)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "t.npz", "t.npy", "a-idx3-ubyte", "x"])
def test_a_missing_file_and_a_folder_under_its_name_are_refused(name: str, tmp_path: Path):
    with pytest.raises(MarginsError, match="no such file"):
        read_frame(tmp_path / name)
    (tmp_path / name).mkdir()
    with pytest.raises(MarginsError, match=r"a folder|other files"):
        read_frame(tmp_path / name)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": np.array([{}, 1], object)}, "pickled objects"),
        ({"a": np.zeros(2), "b": np.zeros(3)}, "a [2], b [3]"),
        ({"a": np.zeros((2, 3), int)}, "array 'a'"),
        ({"a": np.zeros((2, 3, 4))}, "array 'a'"),
        ({"a": np.zeros((2, 3, 4, 7), np.uint8)}, "array 'a'"),
        ({"a": np.array([[1.0], [np.nan]])}, "NaN or infinity in row 2"),
        ({"a": np.zeros(0)}, "arrays with rows"),
    ],
)
def test_arrays_that_are_no_columns_are_refused(arrays, words: str, tmp_path: Path):
    np.savez(tmp_path / "t.npz", **arrays)
    with pytest.raises(MarginsError) as refused:
        read_frame(tmp_path / "t.npz")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"a": [1, "x"]}, "column 'a'"),
        ({"a": [1], "b": [1, 2]}, "a 1, b 2"),
        ({"a": []}, "without any"),
        (7, "got int"),
        (pl.DataFrame({"a": [b"x"]}), "column 'a'"),
        (pl.DataFrame({"a": [[1.0, 2.0]], "a.b": [1]}).with_columns(a=pl.struct(b=1)), "'a.b'"),
    ],
)
def test_data_in_memory_that_make_no_frame_are_refused(source, words: str):
    with pytest.raises(MarginsError) as refused:
        read_frame(source)
    assert words in str(refused.value)


def test_embeddings_of_other_rows_are_refused_with_both_numbers(tmp_path: Path):
    np.save(tmp_path / "e.npy", np.ones((2, 3)))
    with pytest.raises(MarginsError, match=r"each of the 3 rows, got 2"):
        read_frame(written(tmp_path, GOOD), embeddings=tmp_path / "e.npy")


def test_an_image_is_read_as_grey_or_colour_and_scaled(tmp_path: Path):
    Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4)).save(tmp_path / "g.png")
    Image.new("RGBA", (4, 3), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "g.png")[:, :, 0].tolist() == np.arange(12).reshape(3, 4).tolist()
    assert read_image(tmp_path / "clear.png").tolist() == np.full((3, 4, 3), 255).tolist()
    assert read_image(tmp_path / "g.png", size=(6, 2)).shape == (6, 2, 1)


def test_images_that_are_broken_or_too_large_are_refused_before_they_are_decoded(tmp_path: Path):
    Image.new("L", (300, 200)).save(tmp_path / "large.png")
    Image.effect_noise((64, 64), 50).save(tmp_path / "whole.png")
    written(tmp_path, (tmp_path / "whole.png").read_bytes()[:2000], "cut.png")
    # A header that promises 30000 x 30000 pixels: 900 MB once decoded, some bytes on disk.
    bomb = bytearray((tmp_path / "large.png").read_bytes())
    bomb[16:24] = struct.pack(">II", 30000, 30000)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
    written(tmp_path, bytes(bomb), "bomb.png")
    written(tmp_path, "no image", "text.png")
    for name, words in {
        "bomb.png": "900000000 pixels|at most 50000000", "cut.png": "whole image", "text.png": "no image",
        "none.png": "no such file",
    }.items():  # fmt: skip
        with pytest.raises(MarginsError) as refused:
            read_image(tmp_path / name)
        assert all(word in str(refused.value) for word in [name, *words.split("|")]), name
    with pytest.raises(MarginsError, match="300 x 200"):
        read_image(tmp_path / "large.png", max_pixels=50_000)


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.jsonl", "t.parquet"])
def test_a_stream_holds_the_same_rows_with_one_type_a_column(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Blocks of a few hundred bytes: every boundary between quotes, signs and lines is met.
    monkeypatch.setattr("margins.data.blocks.line_blocks.__kwdefaults__", {"size": 97})
    table = mixed_table().with_columns(
        late=pl.Series(["1"] * 39 + ["x"]), gaps=pl.Series([None] * 38 + [1, 2])
    )
    all_forms(table, tmp_path)
    frames = list(stream_frames(tmp_path / name, rows=7))
    assert [len(f) for f in frames] == [7] * 5 + [5]
    assert len({str(f.table.schema) for f in frames}) == 1
    whole = read_frame(tmp_path / name).table
    streamed = pl.concat([f.table for f in frames])
    assert streamed.with_columns(pl.col("text").fill_null("")).equals(
        whole.with_columns(pl.col("text").fill_null(""))
    )


@pytest.mark.parametrize("name", [n for n in BAD if ".csv" in n or "jsonl" in n or "parquet" in n])
def test_a_stream_refuses_what_a_reader_refuses(name: str, tmp_path: Path):
    path = written(tmp_path, BAD[name][0], name)
    with pytest.raises(MarginsError):
        list(stream_frames(path))


PEAK = """
import pathlib, resource, sys
from margins.data import stream_frames
num = sum(len(f) for f in stream_frames(sys.argv[1], rows=2000))
status = pathlib.Path("/proc/self/status")
# Where there is no such file, the figure includes the parent's peak.
lines = status.read_text().splitlines() if status.exists() else []
own = [line.split()[1] for line in lines if line.startswith("VmHWM")]
print(num, int(own[0] if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) // 1024)
"""


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_the_memory_of_a_stream_does_not_grow_with_the_file(suffix: str, tmp_path: Path):
    line = {"csv": "x" * 400 + ",1\n", "jsonl": json.dumps({"t": "x" * 400, "n": 1}) + "\n"}[suffix]
    peaks: list[int] = []
    for num in (40_000, 160_000):  # 16 and 64 MB
        path = written(tmp_path, ("t,n\n" if suffix == "csv" else "") + line * num, f"t.{suffix}")
        ran = subprocess.run(
            [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True
        ).stdout.split()
        assert int(ran[0]) == num
        peaks.append(int(ran[1]))
    assert peaks[1] - peaks[0] < 30, peaks  # MB; reading it whole would add over eighty


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
def test_the_sets_at_hand_are_read_with_their_types():
    goemotions = read_frame(SHARED / "goemotions" / "dev.jsonl.gz")
    assert goemotions.table.schema["labels"] == pl.List(pl.String)
    mnist = read_frame(SHARED / "mnist" / "t10k-images-idx3-ubyte.gz")
    assert mnist.table.schema == {"image": pl.Array(pl.UInt8, (28, 28)), "label": pl.Int64}
    assert len(mnist) == 10000
    codes = read_frame(SHARED / "hs_codes" / "nodes.csv.gz")
    assert codes.table["hscode"][0] == "01"
