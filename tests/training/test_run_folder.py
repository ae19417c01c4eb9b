"""Another number of epochs begins anew: the run's own checkpoints go, and nothing else of the folder."""

from caveat.training import run_folder

OWN = (
    "checkpoint.safetensors", "warm-checkpoint.safetensors", "phase12-checkpoint.safetensors",
    "members/member-3.safetensors", "members/member-3.checkpoint.safetensors",
    "members/phase2-member-3.checkpoint.safetensors", "members/warm-member-3.checkpoint.safetensors",
)  # fmt: skip
FOREIGN = (
    "my-checkpoint.safetensors",
    "old-phase1-checkpoint.safetensors",
    "members/my-member-3.safetensors",
    "tradi.safetensors",
)


def test_only_checkpoints_of_the_run_are_removed(tmp_path):
    assert not run_folder.claim(tmp_path, {"epochs": 2, "seed": 0})
    (tmp_path / "members").mkdir()
    for name in (*OWN, *FOREIGN):
        (tmp_path / name).write_bytes(b"x")
    assert not run_folder.claim(tmp_path, {"epochs": 2, "seed": 0})
    assert all((tmp_path / name).exists() for name in OWN)  # the same run goes on
    assert run_folder.claim(tmp_path, {"epochs": 3, "seed": 0})
    assert not any((tmp_path / name).exists() for name in OWN)
    assert all((tmp_path / name).exists() for name in FOREIGN)
