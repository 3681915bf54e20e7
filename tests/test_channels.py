"""Names, types and positions of electrodes."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codebrain.channels import (
    ELECTRODES,
    TEN_TWENTY_19,
    bipolar_pair,
    canonical_name,
    channel_type,
    electrode_index,
    positions,
)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("EEG FP1-REF", "Fp1"),
        ("EEG Fp1-LE", "Fp1"),
        ("EEG T3-REF", "T7"),
        ("T6", "P8"),
        ("Fc5.", "FC5"),
        ("Iz..", "Iz"),
        ("CP 6", "CP6"),
        ("F3-A2", "F3"),
        ("C4-M1", "C4"),
        ("EEG F4-A1+A2", "F4"),
        ("EEG-Fz", "Fz"),
        ("EEG F1-Ref-0", "F1"),
        ("Fp1 [uV]", "Fp1"),
        ("POL C3", "C3"),
        ("EEG A2-A1", None),
        ("ECG ECG", None),
        ("EEG 001", None),
        ("F3 3 part", None),
        ("Fp1-F7", None),
        ("EEG C3P-REF", None),
        ("A1", None),
        ("", None),
    ],
)
def test_labels_become_electrodes_or_nothing(label, name):
    assert canonical_name(label) == name


@given(
    name=st.sampled_from(ELECTRODES),
    case=st.sampled_from([str, str.upper, str.lower]),
    form=st.sampled_from(
        ["{}", "EEG {}", "EEG {}-REF", "EEG {}-LE", "{}.", "{}..", " {} ", "{}-A2", "EEG_{}_Ref", "{} (uV)"]
    ),
)
def test_every_electrode_is_known_in_every_spelling(name, case, form):
    assert canonical_name(form.format(case(name))) == name


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("EEG Fp1-REF", "eeg"),
        ("EEG A2-A1", "reference"),
        ("M1", "reference"),
        ("ECG ECG", "ecg"),
        ("EEG EKG1-REF", "ecg"),
        ("EOG VEOG_I", "eog"),
        ("E1-M2", "eog"),
        ("EEG LOC-REF", "eog"),
        ("Chin1-Chin2", "emg"),
        ("Status", "stim"),
        ("STI 014", "stim"),
        ("EDF Annotations", "stim"),
        ("FP1-F7", "bipolar"),
        ("T8-P8-0", "bipolar"),
        ("Photic Ph", "misc"),
    ],
)
def test_what_is_no_scalp_potential_never_passes_for_eeg(label, kind):
    assert channel_type(label) == kind


def test_bipolar_pairs():
    assert bipolar_pair("EEG FP1-F7") == ("Fp1", "F7")
    assert bipolar_pair("T8-P8-1") == ("T8", "P8")
    assert bipolar_pair("EEG Fpz-Cz") == ("Fpz", "Cz")
    assert bipolar_pair("C3-C3") is None
    assert bipolar_pair("C3-A2") is None


def test_order_of_the_table_never_changes():
    # Trained electrode embeddings hold a row per name: new names go to the end.
    digest = hashlib.sha256(" ".join(ELECTRODES[:340]).encode()).hexdigest()
    assert digest.startswith("e4ae507eb39b32fb")
    assert len(set(ELECTRODES)) == len(ELECTRODES)
    assert len(TEN_TWENTY_19) == 19


def test_rows_and_unknown_names():
    assert electrode_index(["T3", "EEG T7-REF"]) == [ELECTRODES.index("T7")] * 2
    with pytest.raises(ValueError, match=r"'Fp9' is not a scalp electrode.*Fp"):
        electrode_index(["Fp1", "Fp9"])
    with pytest.raises(ValueError, match=r"'Status' is not .*; electrodes have names such as Fp1"):
        electrode_index(["Fp1", "Status"])


def test_positions_are_those_of_the_ten_five_system():
    """Against the measured template that MNE ships, after the best rotation onto our sphere."""
    import mne

    names = montages()
    measured = mne.channels.make_standard_montage(names).get_positions()["ch_pos"]
    common = [name for name in ELECTRODES if name in measured]
    assert len(common) > 330
    ours, theirs = positions(common), np.array([measured[name] for name in common])
    centre = np.linalg.lstsq(np.c_[2 * theirs, np.ones(len(theirs))], (theirs**2).sum(1), rcond=None)[0][:3]
    theirs = (theirs - centre) / np.linalg.norm(theirs - centre, axis=1, keepdims=True)
    left, _, right = np.linalg.svd(ours.T @ theirs)
    angle = np.degrees(np.arccos(np.clip(np.sum(ours @ left @ right * theirs, axis=1), -1, 1)))
    assert angle.mean() < 3.5
    assert angle.max() < 9


def montages() -> str:
    """The 10-05 template under the name that the installed MNE has for it."""
    import mne

    known = mne.channels.get_builtin_montages()
    return "colin27_1005" if "colin27_1005" in known else "standard_1005"


def test_positions_are_symmetric_and_on_the_sphere():
    xyz = positions(ELECTRODES)
    np.testing.assert_allclose(np.linalg.norm(xyz, axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(positions(["F3"]) * [-1, 1, 1], positions(["F4"]), atol=1e-12)
    np.testing.assert_allclose(
        positions(["Cz", "Fpz", "T8", "Oz"]), [[0, 0, 1], [0, 1, 0], [1, 0, 0], [0, -1, 0]], atol=1e-12
    )


def test_preparation_does_not_import_torch():
    code = "import sys, data_prep.cli, data_prep.tasks, codebrain; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
