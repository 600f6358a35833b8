"""Recordings of visual cortex: made files of each layout, the search, damage, and the real files."""

import hashlib
import os
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pooch
import pytest
import scipy.io

from neurojax.data import (
    GratingRecording,
    macaque_sessions,
    mouse_sessions,
    stringer_orientations,
    stringer_split,
)
from neurojax.data import _gratings as gratings
from neurojax.data import _stringer as stringer
from neurojax.neural_coding import AngleBins

DATA = Path(os.environ.get("NEUROJAX_DATA", "nowhere"))
STATIC, MOVING = (f"v1_gratings/data_v1_binned_{kind}.mat" for kind in ("static", "moving"))
MOUSE = "mouse_v1_gratings/park2024_gratings.npz"
TRIALS, SPLIT = "W3D4_stringer_oribinned1.npz", "W3D4_stringer_oribinned6_split.npz"
RANDOM = np.random.default_rng(0)


def needs(name):
    return pytest.mark.skipif(not (DATA / name).is_file(), reason=f"needs {name}")


def digest(path, algorithm="sha256"):
    return f"{algorithm}:{hashlib.new(algorithm, path.read_bytes()).hexdigest()}"


@pytest.fixture
def folder(empty_cache, tmp_path, monkeypatch):
    """A data folder, and an empty cache beside it; no network."""
    named = tmp_path / "named"
    for part in ("v1_gratings", "mouse_v1_gratings"):
        (named / part).mkdir(parents=True)
        (empty_cache / part).mkdir(parents=True)
    monkeypatch.setenv("NEUROJAX_DATA", str(named))
    return named


# --- macaque ---------------------------------------------------------------------------------------------

N_UNITS, N_BINS, N_REPETITIONS = 5, 90, 3
TIMES = np.arange(-195, 700, 10, dtype=np.int16)
CONTAMINATION = np.array([0.01, 0.05, 0.2, 0.0499, 0.0])
SPIKES = RANDOM.integers(0, 5, (N_UNITS, 4, N_BINS, N_REPETITIONS), dtype=np.uint8)


def made_session(angle_name, conditions, turned):
    """One cell as MATLAB writes it; vectors lie along the rows or the columns, fields in either order."""
    fields = [("contrast", object), (angle_name, object)]
    struct = np.empty(len(conditions), fields[::-1] if turned else fields)
    struct["contrast"], struct[angle_name] = zip(*conditions, strict=True)
    vector = (-1, 1) if turned else (1, -1)
    return {
        "date": "2002-04-01",
        "subject": "D" if turned else "H",
        "conditions": struct.reshape(vector),
        "contamination": CONTAMINATION.reshape(vector),
        "tetrode": np.arange(N_UNITS, dtype=np.uint8)[None],
        "spikes": SPIKES,
        "times": TIMES[None],
    }


def save_sessions(path, sessions):
    cells = np.empty((len(sessions), 1), object)
    cells[:, 0] = sessions
    scipy.io.savemat(path, {"data": cells}, do_compression=True)


@pytest.fixture
def made_static(folder, monkeypatch):
    """Two sessions of two orientations and two contrasts, contrast running fastest or slowest."""
    fast = [(1.0, 0.0), (10.0, 0.0), (1.0, 90.0), (10.0, 90.0)]
    slow = [(100, 0), (100, 90), (30, 0), (30, 90)]
    path = folder / STATIC
    save_sessions(path, [made_session("orientation", fast, False), made_session("orientation", slow, True)])
    monkeypatch.setitem(
        gratings._MACAQUE, "static", gratings._MACAQUE["static"]._replace(digest=digest(path))
    )
    return path


def test_macaque_sessions_whichever_way_their_vectors_lie(made_static):
    first, second = macaque_sessions("static")
    assert (first.name, first.subject, second.name, second.date) == (
        "static 0",
        "H",
        "static 1",
        "2002-04-01",
    )
    for session in (first, second):
        assert session.spikes.dtype == np.uint8
        np.testing.assert_array_equal(session.spikes, SPIKES)
        np.testing.assert_array_equal(session.times_ms, TIMES)
        np.testing.assert_array_equal(session.contamination, CONTAMINATION)
        np.testing.assert_array_equal(session.tetrode, np.arange(N_UNITS))
    np.testing.assert_array_equal(first.angles_degrees, [0, 0, 90, 90])
    np.testing.assert_array_equal(second.angles_degrees, [0, 90, 0, 90])
    np.testing.assert_array_equal(first.contrasts_percent, [1, 10, 1, 10])
    np.testing.assert_array_equal(second.contrasts_percent, [100, 100, 30, 30])


def test_macaque_counts_in_a_window(made_static):
    session = macaque_sessions("static")[0]
    recording = session.recording((-5, 25))  # bins with centres at −5, 5 and 15 ms
    assert isinstance(recording, GratingRecording)
    assert recording.responses.dtype == recording.angles_degrees.dtype == jnp.float32
    assert (recording.period_degrees, recording.name, recording.n_dropped) == (180.0, "static 0", 2)
    np.testing.assert_array_equal(recording.neurons, [0, 3, 4])  # 0.05 is not below 0.05
    trial = 0
    for repetition in range(N_REPETITIONS):
        for condition, angle in ((1, 0), (3, 90)):
            expected = [SPIKES[unit, condition, 19:22, repetition].sum() for unit in (0, 3, 4)]
            np.testing.assert_array_equal(recording.responses[trial], expected)
            assert recording.angles_degrees[trial] == angle
            trial += 1
    assert len(recording.responses) == trial


def test_macaque_other_contrast_and_all_units(made_static):
    session = macaque_sessions("static")[1]
    recording = session.recording((0, 500), max_contamination=None, contrast=30)
    assert recording.n_dropped == 0
    expected = SPIKES[:, 2:, 20:70].sum(axis=2, dtype=int)  # units, conditions, repetitions
    np.testing.assert_array_equal(recording.responses[3], expected[:, 1, 1])
    np.testing.assert_array_equal(recording.angles_degrees, [0, 90] * N_REPETITIONS)
    assert not np.array_equal(recording.responses, session.recording(max_contamination=None).responses)


def test_macaque_bad_requests(made_static, untyped):
    session = macaque_sessions("static")[0]
    with pytest.raises(ValueError, match=r"window_ms: expected .*from -195 to 695, got \(500, 0\)\."):
        session.recording((500, 0))
    with pytest.raises(ValueError, match=r"window_ms: expected a window \[a, b\) .* got \(1, 5\)\."):
        session.recording((1, 5))
    with pytest.raises(
        ValueError, match=r"contrast: expected 'highest' or one of 1, 10 \(percent\), got 100"
    ):
        session.recording(contrast=100)
    with pytest.raises(ValueError, match=r"max_contamination: .*static 0, whose least is 0, got 0\."):
        session.recording(max_contamination=0)
    with pytest.raises(ValueError, match=r"kind: expected one of .*'moving'\), got 'drifting'\."):
        macaque_sessions("drifting")  # pyright: ignore[reportArgumentType]


def test_macaque_damaged_or_missing_file(made_static):
    content = bytearray(made_static.read_bytes())
    wanted = gratings._MACAQUE["static"].digest.removeprefix("sha256:")
    content[len(content) // 2] ^= 1
    made_static.write_bytes(content)
    came = hashlib.sha256(content).hexdigest()
    with pytest.raises(ValueError, match=rf"static\.mat: expected .*sha256 {wanted}\), got {came}"):
        macaque_sessions("static")
    made_static.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"v1_gratings/.*NEUROJAX_DATA.*http://bethgelab\.org/datasets"
    ):
        macaque_sessions("static")


def test_loading_writes_nothing(made_static):
    root = made_static.parents[2]
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    macaque_sessions("static")[0].recording()
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.slow
@needs(STATIC)
def test_real_static_sessions():
    sessions = macaque_sessions("static")
    assert len(sessions) == 17
    bins = AngleBins(8, 180, -11.25)
    for session in sessions:
        n_units, n_conditions, _, n_repetitions = session.spikes.shape
        orientations = np.unique(session.angles_degrees)
        assert len(orientations) in (7, 8)
        assert n_conditions == 2 * len(orientations)
        assert len(np.unique(bins.index(orientations))) == len(orientations)
        recording = session.recording()
        is_clean = session.contamination < 0.05
        is_high = session.contrasts_percent == session.contrasts_percent.max()
        assert recording.responses.shape == (len(orientations) * n_repetitions, is_clean.sum())
        assert recording.n_dropped == n_units - is_clean.sum()
        direct = np.einsum("ucbr->rcu", session.spikes[is_clean][:, is_high, 20:70].astype(int))
        np.testing.assert_array_equal(recording.responses, direct.reshape(recording.responses.shape))
        everyone = session.recording(max_contamination=None)
        assert everyone.responses.shape[1] == n_units
        np.testing.assert_array_equal(everyone.angles_degrees[: len(orientations)], orientations)
    assert [session.spikes.shape[0] for session in sessions[:9:8]] == [24, 18]
    assert sum(len(np.unique(session.angles_degrees)) == 7 for session in sessions) == 4


@needs(MOVING)
def test_real_moving_sessions():
    sessions = macaque_sessions("moving")
    assert len(sessions) == 27
    for number, session in enumerate(sessions):
        assert session.name == f"moving {number}"
        assert len(np.unique(session.angles_degrees)) == len(session.angles_degrees) == 16
        is_rounded = session.subject == "D"
        np.testing.assert_allclose(session.angles_degrees, 22.5 * np.arange(16), atol=1.5 * is_rounded)
        np.testing.assert_array_equal(AngleBins(16, 360, -11.25).index(session.angles_degrees), np.arange(16))
        np.testing.assert_array_equal(session.contrasts_percent, np.full(16, 100))
        assert len(session.contamination) == len(session.tetrode) == len(session.spikes)
    recording = sessions[2].recording()
    assert recording.period_degrees == 360
    session = sessions[2]
    direct = session.spikes[session.contamination < 0.05][:, :, 20:70].sum(axis=2, dtype=int)
    np.testing.assert_array_equal(recording.responses, direct.transpose(2, 1, 0).reshape(-1, len(direct)))


# --- mouse -----------------------------------------------------------------------------------------------


def made_mouse_arrays():
    arrays: dict = {"time": (np.arange(49) / 16 - 1).astype(np.float32)}
    for name in ("230809_mrcuts28_fov4", "230803_mrcuts25_fov6"):
        arrays[f"{name}_traces"] = RANDOM.normal(size=(6, 4, 49)).astype(np.float32)
        arrays[f"{name}_direction"] = np.array([0, 45, 180, 225, 315, 135], np.uint16)
        arrays[f"{name}_speed"] = RANDOM.normal(size=(6, 49)).astype(np.float32)
        arrays[f"{name}_pupil"] = RANDOM.normal(size=(6, 49)).astype(np.float32)
    return arrays


@pytest.fixture
def made_mouse(folder, monkeypatch):
    arrays = made_mouse_arrays()
    np.savez(folder / MOUSE, **arrays)
    monkeypatch.setattr(gratings, "_MOUSE", gratings._MOUSE._replace(digest=digest(folder / MOUSE)))
    return arrays


def test_mouse_responses_are_mean_minus_mean(made_mouse):
    edited, control = mouse_sessions()
    assert (edited.name, edited.is_control) == ("230803_mrcuts25_fov6", False)
    assert (control.name, control.is_control) == ("230809_mrcuts28_fov4", True)
    traces = made_mouse["230809_mrcuts28_fov4_traces"].astype(float)
    np.testing.assert_array_equal(control.traces, traces)
    np.testing.assert_array_equal(control.pupil, made_mouse["230809_mrcuts28_fov4_pupil"])
    recording = control.recording()
    expected = traces[:, :, 16:48].mean(axis=2) - traces[:, :, :16].mean(axis=2)
    assert recording.responses.dtype == jnp.float32
    np.testing.assert_allclose(recording.responses, expected, atol=1e-6)
    np.testing.assert_array_equal(recording.angles_degrees, [0, 45, 180, 225, 315, 135])
    assert (recording.period_degrees, recording.n_dropped) == (360.0, 0)
    other = control.recording((0.5, 1), None, orientation=True)
    np.testing.assert_allclose(other.responses, traces[:, :, 24:32].mean(axis=2), atol=1e-6)
    np.testing.assert_array_equal(other.angles_degrees, [0, 45, 0, 45, 135, 135])
    assert other.period_degrees == 180.0
    with pytest.raises(ValueError, match=r"baseline_window_s: expected .* from -1 to 2, got \(-3, -2\)\."):
        control.recording(baseline_window_s=(-3, -2))


def test_mouse_damaged_or_missing_file(folder):
    np.savez(folder / MOUSE, **made_mouse_arrays())
    with pytest.raises(
        ValueError, match=r"park2024_gratings\.npz: expected .*sha256 51a31b4e\w+\), got \w{64}\."
    ):
        mouse_sessions()
    (folder / MOUSE).unlink()
    with pytest.raises(FileNotFoundError, match=r"mouse_v1_gratings/park.*surlab/Park_et_al"):
        mouse_sessions()


@needs(MOUSE)
def test_real_mouse_sessions():
    sessions = mouse_sessions()
    assert len(sessions) == 7
    assert [session.is_control for session in sessions] == [False] * 4 + [True] * 3
    for session in sessions:
        recording = session.recording()
        assert recording.responses.shape == (128, session.traces.shape[1])
        angles, counts = np.unique(recording.angles_degrees, return_counts=True)
        np.testing.assert_array_equal(angles, np.arange(0, 360, 45))
        np.testing.assert_array_equal(counts, np.full(8, 16))
        during, before = session.times_s[16:48], session.times_s[:16]
        assert (during[0], during[-1], before[0]) == (0, 1.9375, -1)
        expected = session.traces[..., 16:48].mean(-1) - session.traces[..., :16].mean(-1)
        np.testing.assert_allclose(recording.responses, expected, atol=1e-5)


# --- the course's files ----------------------------------------------------------------------------------

RESPONSES = RANDOM.normal(size=(12, 7)).astype(np.float32)
STIMULI = np.arange(0, 360, 30).astype(float)
MADE: dict[str, dict] = {
    TRIALS: {"resp": RESPONSES, "stimuli": STIMULI},
    SPLIT: {"resp_train": RESPONSES, "resp_test": RESPONSES[::-1], "stimuli": STIMULI},
}
LOADERS = {TRIALS: stringer_orientations, SPLIT: stringer_split}


def test_course_files_by_path(tmp_path):
    for name, arrays in MADE.items():
        np.savez(tmp_path / name, allow_pickle=True, **arrays)
    recording = stringer_orientations(tmp_path / TRIALS, check_digest=False)
    assert isinstance(recording, GratingRecording)
    np.testing.assert_array_equal(recording.responses, RESPONSES)
    np.testing.assert_array_equal(recording.angles_degrees, STIMULI)
    assert recording.responses.dtype == recording.angles_degrees.dtype == jnp.float32
    assert (recording.period_degrees, recording.n_recorded, recording.n_dropped) == (360.0, 7, 0)
    split = stringer_split(str(tmp_path / SPLIT), check_digest=False)
    np.testing.assert_array_equal(split.train, RESPONSES)
    np.testing.assert_array_equal(split.test, RESPONSES[::-1])
    np.testing.assert_array_equal(split.angles_degrees, STIMULI)


@pytest.mark.parametrize("name", MADE)
def test_course_files_are_refused_by_their_digest(tmp_path, name):
    np.savez(tmp_path / name, **MADE[name])
    wanted = {TRIALS: "436599dfd8ebe6019f066c38aed20580", SPLIT: "b3f7245c6221234a676b71a1f43c3bb5"}[name]
    came = digest(tmp_path / name, "md5").removeprefix("md5:")
    with pytest.raises(ValueError, match=rf"{name}: expected .*md5 {wanted}\), got {came}\."):
        LOADERS[name](tmp_path / name)


@pytest.mark.parametrize("place", ["folder", "cache", "download"])
def test_course_files_are_found_or_downloaded(folder, empty_cache, monkeypatch, place):
    made = folder.parent / "made.npz"
    np.savez(made, **MADE[TRIALS])
    monkeypatch.setattr(stringer, "_TRIALS", stringer._TRIALS._replace(digest=digest(made, "md5")))
    fetched = []

    def fetch(url, known_hash, fname, path):
        fetched.append((url, known_hash, path))
        return str(made.rename(path / fname))

    if place == "download":
        monkeypatch.setattr(pooch, "retrieve", fetch)
    else:
        made.rename({"folder": folder, "cache": empty_cache}[place] / TRIALS)
    np.testing.assert_array_equal(stringer_orientations().responses, RESPONSES)
    address = ("https://osf.io/683xc/download", stringer._TRIALS.digest, empty_cache)
    assert fetched == ([address] if place == "download" else [])


def test_course_file_that_cannot_be_had(folder, tmp_path):
    with pytest.raises(
        ConnectionError, match=r"oribinned6_split\.npz: not found .*osf\.io/p3aeb/download .*no net"
    ):
        stringer_split()
    with pytest.raises(
        FileNotFoundError, match=r"nothing\.npz: expected a file like W3D4_stringer_oribinned1"
    ):
        stringer_orientations(tmp_path / "nothing.npz")


NAN = np.where(np.arange(84).reshape(12, 7) % 40 == 3, np.nan, RESPONSES)
BAD = {
    "keys": (TRIALS, {"resp": RESPONSES, "angles": STIMULI}, r"named resp, stimuli, got angles, resp\."),
    "other file": (TRIALS, MADE[SPLIT], r"named resp, stimuli, got resp_test, resp_train, stimuli\."),
    "trials": (TRIALS, {"resp": RESPONSES[1:]}, r"resp to have a row for each of 12 stimuli, got 11\."),
    "turned": (TRIALS, {"resp": RESPONSES.T}, r"resp to have a row for each of 12 stimuli, got 7\."),
    "NaN": (TRIALS, {"resp": NAN}, r"resp: expected finite numbers, got 3 that are NaN"),
    "NaN angle": (TRIALS, {"stimuli": STIMULI * np.nan}, r"stimuli: expected finite numbers, got 12 that"),
    "axes": (
        TRIALS,
        {"resp": RESPONSES[0]},
        r"resp to be .*\(trials, neurons\), got float32 of shape \(7,\)",
    ),
    "kind": (TRIALS, {"resp": RESPONSES + 1j}, r"resp to be real numbers .*got complex64"),
    "angles": (TRIALS, {"stimuli": STIMULI[:, None]}, r"stimuli to be .*\(trials,\), got .*\(12, 1\)"),
    "objects": (TRIALS, {"stimuli": np.array([None] * 12)}, r"expected a NumPy array file, .*cannot be read"),
    "test trials": (SPLIT, {"resp_test": RESPONSES[:5]}, r"resp_test to have a row for each of 12 .*got 5"),
    "neurons": (SPLIT, {"resp_test": RESPONSES[:, :5]}, r"neurons of resp_train, 7, got 5\."),
    "NaN in test": (SPLIT, {"resp_test": NAN}, r"resp_test: expected finite numbers, got 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_course_files_of_another_layout(tmp_path, case):
    name, changes, message = BAD[case]
    arrays = changes if case in ("keys", "other file") else {**MADE[name], **changes}
    np.savez(tmp_path / name, allow_pickle=True, **arrays)
    with pytest.raises(ValueError, match=rf"{name}: .*{message}"):
        LOADERS[name](tmp_path / name, check_digest=False)
