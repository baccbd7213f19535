from __future__ import annotations

import io
import json
import pickle
import shutil
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from limner.config import DataConfig
from limner.data.records import Record, load_split, open_records, select, split_of
from limner.errors import LimnerError, UsageError

CONFIG = DataConfig()


def png(level: int = 0) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), (level, level, level)).save(file, "PNG")
    return file.getvalue()


def lines(*rows: Mapping[str, object]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def fill(folder: Path, files: Mapping[str, bytes | str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def pack(path: Path, files: Mapping[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tar(path: Path, files: Mapping[str, bytes | str]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def record(name: str = "a.png", **known: str) -> Record:
    columns = {"text": "", "license": "", "source": "", "style": "", "group": name} | known
    return Record(name=name, split=None, extra={}, read=bytes, **columns)  # type: ignore[arg-type]


ROWS = lines(
    {"file_name": "b.png", "text": "a bee", "group": "g", "license": "MIT", "source": "s", "style": "flat", "key": 7},
    {"file_name": "sub/a.png", "text": None},
)


def check_imagefolder(found: list[Record]) -> None:
    bee, bare = found
    assert (bee.name, bee.text, bee.group, bee.license, bee.source, bee.style) == (
        "b.png",
        "a bee",
        "g",
        "MIT",
        "s",
        "flat",
    )
    assert (bee.extra, bee.split, bee.read()) == ({"key": 7}, None, png(1))
    assert (bare.name, bare.text, bare.group, bare.license) == ("sub/a.png", "", "sub/a.png", "")


def test_imagefolder_as_folder_and_as_zip(tmp_path: Path) -> None:
    files = {"metadata.jsonl": ROWS, "b.png": png(1), "sub/a.png": png(2)}
    check_imagefolder(open_records(fill(tmp_path / "data", files), CONFIG))
    check_imagefolder(open_records(pack(tmp_path / "data.zip", files), CONFIG))


def test_metadata_csv_with_a_quoted_comma(tmp_path: Path) -> None:
    table = '\ufefffile_name,text,mood\na.png,"red, round",calm\n'
    (found,) = open_records(fill(tmp_path, {"metadata.csv": table, "a.png": png()}), CONFIG)
    assert (found.text, found.extra) == ("red, round", {"mood": "calm"})


def test_metadata_lies_beside_its_pictures(tmp_path: Path) -> None:
    files = {
        "train/metadata.jsonl": lines({"file_name": "./a.png", "text": "one"}),
        "train/a.png": png(),
        "val/metadata.jsonl": lines({"file_name": "a.png", "text": "two"}),
        "val/a.png": png(),
        "val/uncaptioned.png": png(),
    }
    found = open_records(fill(tmp_path, files), CONFIG)
    assert [(r.name, r.text, r.split) for r in found] == [
        ("train/a.png", "one", "train"),
        ("val/a.png", "two", "validation"),
        ("val/uncaptioned.png", "", "validation"),
    ]


def test_a_tree_of_zips(tmp_path: Path) -> None:
    for style in ("noto", "dcss"):
        for split in ("train", "validation", "test"):
            rows = lines({"file_name": "a.webp", "text": f"{style} {split}", "group": "emoji:1"})
            pack(tmp_path / style / f"{split}.zip", {"metadata.jsonl": rows, "a.webp": png()})
    found = open_records(tmp_path, CONFIG)
    assert [r.name for r in found][:2] == ["dcss/test.zip/a.webp", "dcss/train.zip/a.webp"]
    assert [r.text.split()[1] for r in found] == [r.split for r in found]
    assert {r.group for r in found} == {"emoji:1"}
    assert len(open_records(tmp_path / "noto", CONFIG)) == 3


def test_the_opened_path_itself_gives_no_split(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a.png": png()})
    pack(tmp_path / "test.zip", {"b.png": png()})
    assert [r.split for r in open_records(tmp_path, CONFIG)] == ["test", "train"]
    assert open_records(tmp_path / "train", CONFIG)[0].split is None
    assert open_records(tmp_path / "test.zip", CONFIG)[0].split is None


def test_plain_folder_keeps_crops_of_a_photo_together(tmp_path: Path) -> None:
    names = ("lake_0.jpg", "lake_11.JPG", "sub/lake_0.jpg", "img_006.png", "notes.txt", ".hidden/x.png", "v1.2_3.png")
    found = open_records(fill(tmp_path, dict.fromkeys(names, png())), CONFIG)
    assert {r.name: r.group for r in found} == {
        "lake_0.jpg": "lake",
        "lake_11.JPG": "lake",
        "sub/lake_0.jpg": "sub/lake",
        "img_006.png": "img_006",
        "v1.2_3.png": "v1.2",
    }


@pytest.mark.parametrize("prefix", ["sr/train", "train"])
def test_sibling_manifest(tmp_path: Path, prefix: str) -> None:
    manifest = lines(
        {"file": f"{prefix}/x_0.jpg", "repo": "a/b", "path": "p/x.jpg", "license": "CC0-1.0", "crop": [0, 1]},
        {"file": f"{prefix}/y_0.jpg", "license": "MIT"},
    )
    files = {"sr/train.manifest.jsonl": manifest, "sr/train/x_0.jpg": png(), "sr/train/y_0.jpg": png()}
    fill(tmp_path, files | {"sr/train/z.jpg": png()})
    alone, tree = open_records(tmp_path / "sr/train", CONFIG), open_records(tmp_path / "sr", CONFIG)
    x, y, z = alone
    assert (x.name, x.group, x.license, x.source, x.extra["crop"]) == (
        "x_0.jpg",
        "a/b/p/x.jpg",
        "CC0-1.0",
        "a/b",
        [0, 1],
    )
    assert (y.group, y.license, z.license) == (f"{prefix}/y", "MIT", "")
    assert [r.license for r in tree] == ["CC0-1.0", "MIT", ""]
    assert [r.split for r in tree] == ["train"] * 3


def test_webdataset_shards(tmp_path: Path) -> None:
    files = {
        "001.jpg": png(1),
        "001.txt": "a cat\n",
        "002.png": png(2),
        "002.json": json.dumps({"text": "a dog", "license": "MIT", "group": "g", "split": "val", "n": 3}),
        "002.seg.png": png(9),
        "003.webp": png(3),
    }
    cat, dog, bare = open_records(tar(tmp_path / "000.tar", files), CONFIG)
    assert (cat.name, cat.text, cat.read()) == ("001.jpg", "a cat", png(1))
    assert (dog.name, dog.text, dog.group, dog.split, dog.extra) == ("002.png", "a dog", "g", "validation", {"n": 3})
    assert (bare.text, bare.read()) == ("", png(3))
    tar(tmp_path / "train-0001.tar", {"x.png": png()})
    assert [r.split for r in open_records(tmp_path, CONFIG)] == [None, "validation", None, "train"]


def test_group_column_is_a_choice(tmp_path: Path) -> None:
    rows = lines({"file_name": "a.png", "photo": 12}, {"file_name": "b.png", "photo": None})
    fill(tmp_path, {"metadata.jsonl": rows, "a.png": png(), "b.png": png()})
    assert [r.group for r in open_records(tmp_path, DataConfig(group_column="photo"))] == ["12", "b.png"]
    with pytest.raises(LimnerError, match="no record has the column 'foto'"):
        open_records(tmp_path, DataConfig(group_column="foto"))


def test_reading_is_safe_among_threads_and_pickles(tmp_path: Path) -> None:
    files = {f"{i:03}.png": png(i) * 50 for i in range(100)}
    found = open_records(pack(tmp_path / "a.zip", files), CONFIG)
    barrier = threading.Barrier(8)

    def read_all(_: int) -> list[bytes]:
        barrier.wait()
        return [r.read() for r in found]

    with ThreadPoolExecutor(8) as pool:
        assert all(got == list(files.values()) for got in pool.map(read_all, range(8)))
    assert pickle.loads(pickle.dumps(found[7])).read() == files["007.png"]


def test_a_rewritten_zip_is_read_anew(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.png": png(1)})
    assert open_records(path, CONFIG)[0].read() == png(1)
    pack(tmp_path / "b.zip", {"0.png": png(9), "a.png": png(2)}).replace(path)
    assert open_records(path, CONFIG)[1].read() == png(2)


def test_select_by_licence_and_style() -> None:
    records = [
        record("a", license="CC-BY-SA-4.0", style="flat"),
        record("b", license="CC0-1.0", style="line"),
        record("c", style="flat"),
    ]

    def names(**config: tuple[str, ...]) -> str:
        return "".join(r.name for r in select(records, DataConfig.model_validate(config)))

    assert names() == "abc"
    assert names(licenses=("cc-by", "MIT")) == "a"
    assert names(exclude_licenses=("-sa-",)) == "bc"
    assert names(styles=("flat",)) == "ac"
    assert names(styles=("flat",), licenses=("cc",)) == "a"


def test_hashed_splits_have_their_shares_and_stay_put() -> None:
    config = DataConfig(validation_fraction=0.1, test_fraction=0.2)
    records = [record(str(i)) for i in range(4000)]
    splits = [split_of(r, config) for r in records]
    assert 0.08 < splits.count("validation") / 4000 < 0.12
    assert 0.17 < splits.count("test") / 4000 < 0.23
    wider = [split_of(r, DataConfig(validation_fraction=0.3, test_fraction=0.2)) for r in records]
    assert [s == "test" for s in wider] == [s == "test" for s in splits]
    assert all(after == "validation" for before, after in zip(splits, wider, strict=True) if before == "validation")
    assert splits != [split_of(r, config.model_copy(update={"split_seed": 1})) for r in records]


def test_hashed_split_is_the_same_on_every_machine() -> None:
    config = DataConfig(validation_fraction=0.5)
    drawn = "".join(split_of(record(group=f"g{i}"), config)[0] for i in range(16))
    assert drawn == "ttvvvvtvtttvvtvv"


def test_given_split_wins_and_groups_stay_together(tmp_path: Path) -> None:
    fill(
        tmp_path,
        {f"test/p{i}_0.png": png() for i in range(9)}
        | {f"q{i:03}_{k}.png": png() for i in range(40) for k in range(3)},
    )
    config = DataConfig(validation_fraction=0.5)
    train, test = load_split(tmp_path, "train", config), load_split(tmp_path, "test", config)
    validation = load_split(tmp_path, "validation", config)
    assert len(test) == 9
    assert len(train) + len(validation) == 120
    assert not {r.group for r in train} & {r.group for r in validation}


def test_load_split_says_what_left_nothing(tmp_path: Path) -> None:
    fill(tmp_path, {"a.png": png()})
    with pytest.raises(LimnerError, match=r"the test split is empty \(1 pictures in all\): raise data.test_fraction"):
        load_split(tmp_path, "test", CONFIG)
    with pytest.raises(LimnerError, match=r"no picture passes data\.licenses.*it has: none"):
        load_split(tmp_path, "train", DataConfig(licenses=("MIT",)))
    with pytest.raises(UsageError, match="add up to 1"):
        load_split(tmp_path, "train", DataConfig(validation_fraction=0.5, test_fraction=0.5))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes.txt": "hello"}, "no pictures there"),
        ({"metadata.jsonl": lines({"file_name": "x.png"}, {"file_name": "y.png"})}, r"2 of 2 .*first 'x.png'"),
        ({"metadata.jsonl": lines({"file_name": "../a.png"}), "a.png": b""}, r"1 of 1 .*first '../a.png'"),
        ({"metadata.jsonl": '{"file_name": "a.png"}\n{"file_name"', "a.png": b""}, r"metadata.jsonl, line 2: not JSON"),
        ({"metadata.jsonl": "[1]", "a.png": b""}, "line 1: not a JSON object"),
        ({"metadata.jsonl": lines({"text": "hi"}), "a.png": b""}, "line 1: no column 'file_name'"),
        ({"metadata.csv": "name,text\na.png,hi\n", "a.png": b""}, "line 2: no column 'file_name'"),
        ({"metadata.csv": "file_name,text\na.png,red, round\n", "a.png": b""}, "line 2: more fields than columns"),
        ({"metadata.jsonl": lines({"file_name": "a.png"}, {"file_name": "./a.png"}), "a.png": b""}, "occurs twice"),
        ({"metadata.jsonl": b"\xff\xfe", "a.png": b""}, "not UTF-8"),
        ({"sub.manifest.jsonl": lines({"path": "a.png"}), "sub/a.png": b""}, "line 1: no column 'file'"),
        ({"a.zip": b"PK nonsense"}, "a.zip: damaged or not an archive"),
        ({"a.tar": b"nonsense" * 200}, "a.tar: damaged or not an archive"),
    ],
)  # fmt: skip
def test_bad_data_is_one_sentence(tmp_path: Path, files: Mapping[str, bytes | str], message: str) -> None:
    with pytest.raises(LimnerError, match=message) as caught:
        open_records(fill(tmp_path, files), CONFIG)
    assert "\n" not in str(caught.value)


def test_missing_path_and_wrong_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(LimnerError, match="no such file or folder"):
        open_records(tmp_path / "nowhere", CONFIG)
    with pytest.raises(LimnerError, match="not a data set"):
        open_records(fill(tmp_path, {"a.png": png()}) / "a.png", CONFIG)


def test_damage_inside_archives(tmp_path: Path) -> None:
    whole = tar(tmp_path / "a.tar", {"a.png": bytes(5000)})
    shutil.copy(whole, tmp_path / "cut.tar")
    with (tmp_path / "cut.tar").open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(LimnerError, match=r"cut\.tar: damaged"):
        open_records(tmp_path / "cut.tar", CONFIG)
    path = pack(tmp_path / "a.zip", {"a.png": png()})
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(LimnerError, match=r"a.png cannot be read"):
        open_records(path, CONFIG)[0].read()


def test_data_can_be_read_and_checked_without_torch() -> None:
    code = "import sys, limner.data.check, limner.data.records, limner.data.shards; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
