"""Files from elsewhere: none can run code, or point out of the folder of its study."""

import hashlib
import json
import os
import pickle
from functools import partial

import google_crc32c
import numcodecs.pickles
import numpy as np
import pytest
import xarray as xr
import zarr
from click.testing import CliRunner

from lthdask.checks.folder import check, repair
from lthdask.driver.opening import open_study
from lthdask.errors import InputError
from lthdask.storage import checkpoints
from lthdask.storage.cube import Cube
from lthdask.storage.results import open_results
from lthdask.storage.schema import Status
from lthdask.study import Study
from tests.conftest import change_manifest
from tests.test_check import CELL, CHUNK, CUBE, STUDY, folder, script, whole
from tests.test_storage import CHECKPOINT

__all__ = ["folder", "whole"]  # fixtures


@pytest.fixture
def canary(tmp_path):
    """A folder that is there once hostile code has run."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists()


class Payload:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def pickled(canary):
    """A pickle that makes the canary when it is read."""
    content = pickle.dumps(Payload(canary))
    pickle.loads(content)
    canary.rmdir()  # it would have
    return content


def test_a_pickle_is_no_checkpoint(tmp_path, pickled):
    path = tmp_path / "epoch-0000.safetensors"
    path.write_bytes(pickled)
    with pytest.raises(InputError, match="is not a valid checkpoint"):
        checkpoints.load(path, hashlib.sha256(pickled).hexdigest())


def test_a_pickle_is_no_state(tmp_path, pickled):
    state, warned = checkpoints.State(tmp_path, lambda line: warned.append(line)), []
    state.save(CHECKPOINT, {})
    (file,) = tmp_path.glob("*.safetensors")
    file.write_bytes(hashlib.sha256(pickled).digest() + pickled)
    assert state.load() is None
    assert "is not a valid checkpoint" in warned[0]


@pytest.mark.parametrize("array", ["metrics", "status"])
def test_a_pickle_in_a_chunk_is_damage(folder, pickled, array):
    chunk = folder / CUBE / array / (f"{CHUNK}/0" if array == "metrics" else CHUNK)
    chunk.write_bytes(pickled + google_crc32c.value(pickled).to_bytes(4, "little"))
    with pytest.raises(InputError, match="lthdask check"):
        open_results(folder)
    (found,) = repair(folder)
    assert found.what == str(CELL)
    assert check(folder) == []


@pytest.mark.parametrize("beside", ["nothing", "the group"])
def test_a_pickle_in_an_array_of_format_2_is_not_read(folder, pickled, canary, monkeypatch, beside):
    # As in numcodecs before 0.16, and where somebody needs it so.
    monkeypatch.setattr(numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    cube, array = folder / CUBE, folder / CUBE / "place"
    about = {
        "zarr_format": 2,
        "shape": [1, 1, 3, 2],
        "chunks": [1, 1, 1, 1],
        "dtype": "|O",
        "fill_value": "",
        "order": "C",
        "compressor": None,
        "filters": [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}],
    }
    (array / "zarr.json").unlink()
    (array / ".zarray").write_text(json.dumps(about))
    (array / ".zattrs").write_text(
        json.dumps({"_ARRAY_DIMENSIONS": ["arm", "replicate", "threshold", "rewind_epoch"]})
    )
    (array / "0.0.0.0").write_bytes(pickled)
    (cube / ".zgroup").write_text('{"zarr_format": 2}')
    with pytest.raises(Exception):  # noqa: B017, PT011 - what was unpickled is no array
        zarr.open_array(array, zarr_format=2, mode="r")[0, 0, 0, 0]
    canary.rmdir()  # so it is alive
    if beside == "nothing":
        (cube / "zarr.json").unlink()
    for read in (lambda: Cube(cube), lambda: open_study(STUDY, folder)):
        with pytest.raises(InputError, match="lthdask check"):
            read()
    if beside == "nothing":
        with pytest.raises(InputError, match="lthdask check"):
            open_results(folder)
    else:
        open_results(folder)  # by the consolidated metadata, as before
    assert f"{CUBE}/place/zarr.json" in [damage.what for damage in repair(folder)]
    assert check(folder) == []


def test_an_unknown_codec_is_not_looked_up_in_a_pickle(folder, pickled):
    for file in (folder / CUBE / "place/zarr.json", folder / CUBE / "zarr.json"):
        file.write_text(file.read_text().replace('"vlen-utf8"', '"numcodecs.pickle"'))
    (folder / CUBE / "place" / CHUNK).write_bytes(pickled)
    for read in (lambda: Cube(folder / CUBE), lambda: open_results(folder)):
        with pytest.raises(InputError, match="lthdask check"):
            read()
    repair(folder)
    assert check(folder) == []


@pytest.mark.parametrize("tag", ["python/object/apply:os.system", "python/name:os.system"])
def test_a_study_cannot_name_code(tmp_path, canary, tag):
    text = STUDY.to_yaml() + f"\nextra: !!{tag} ['touch {canary}']\n"
    with pytest.raises(InputError, match="could not determine a constructor"):
        Study.parse(text)


def test_a_study_of_aliases_is_refused_before_it_fills_the_memory():
    rows = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    text = "\n".join(["a0: &a0 [x, x]", *rows])
    with pytest.raises(InputError, match=r"study, line 2: write out the value of the alias \*a0"):
        Study.parse(text)


NAMES = [
    {"../../../outside": {"0": "x"}},
    {"0": {"../../outside": "x"}},
    {"-1": {"0": "x"}},
    {"٠": {"0": "x"}},
    {"0": ["0"]},
    ["0"],
]


@pytest.mark.parametrize("names", NAMES, ids=str)
def test_names_in_a_manifest_cannot_point_out_of_the_folder(folder, names):
    change_manifest(folder, checkpoints=names)
    (found,) = repair(folder)
    assert (found.what, found.mend) == ("manifest.json", None)
    arguments = ["--study", str(folder / "study.yaml"), "--out", str(folder)]
    for way in ([], ["--status"], ["--dry-run"]):
        done = CliRunner().invoke(script("run"), [*arguments, *way])
        assert (done.exit_code, "was not written by lthdask" in done.stderr) == (2, True)


def axis(name, values, folder):
    group = zarr.open_group(folder / CUBE, use_consolidated=False)
    attributes, fill = dict(group[name].attrs), "" if values.dtype.kind == "T" else 0
    array = group.create_array(
        name,
        shape=values.shape,
        dtype=values.dtype,
        dimension_names=[name],
        fill_value=fill,
        overwrite=True,
        attributes=attributes,
    )
    array[:] = values
    zarr.consolidate_metadata(folder / CUBE)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
@pytest.mark.parametrize(
    ("name", "value"), [("arm", "../../outside"), ("replicate", "../../outside")]
)
def test_names_in_a_cube_cannot_point_out_of_the_folder(folder, name, value):
    axis(name, np.array([value], dtype=np.dtypes.StringDType()), folder)
    assert xr.open_zarr(folder / CUBE)[name].item() == value
    for read in (partial(Cube, folder / CUBE), partial(open_results, folder)):
        with pytest.raises(InputError, match=r"another (version|type)"):
            read()
    assert {damage.what for damage in repair(folder)} >= {f"{CUBE}/{name}/zarr.json"}
    assert check(folder) == []
    assert set(Cube(folder / CUBE).cells().values()) == {Status.DONE}
