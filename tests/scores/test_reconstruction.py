"""Reconstruction error: closed form, in audit and guard of any network with an autoencoder, clear refusals."""

from pathlib import Path

import pytest
import torch
from tests.audits.conftest import CLASSES, known, model, ood, pictures
from torch import Tensor, nn

import caveat
from caveat import Guard
from caveat.errors import ModelError
from caveat.guard import artefact
from caveat.models import WithAutoencoder, denoising_classifier
from caveat.observations import observe
from caveat.scores import FROM_RECONSTRUCTION, reconstruction
from caveat.scoring import catalog

__all__ = ["known", "model", "ood"]


class Project(nn.Module):
    """Draws only what lies in the in-distribution pictures' plane: their mean, and a quarter in one of the first four
    pixels."""

    def forward(self, inputs: Tensor) -> Tensor:
        flat = inputs.flatten(1)
        drawn = torch.full_like(flat, 0.4)
        drawn[torch.arange(len(flat)), flat[:, :4].argmax(dim=1)] = 0.65
        return drawn.view_as(inputs)


def test_the_error_by_hand():
    images = torch.tensor([[[[0.0, 1.0]]], [[[0.5, 0.5]]]])
    again = torch.tensor([[[[0.5, 0.0]]], [[[0.5, 0.5]]]])
    assert reconstruction.error(images, again).tolist() == [0.625, 0.0]


def test_the_probe_is_the_error_of_the_inputs_as_they_are(generator):
    joint = denoising_classifier(classes=3, size=8, width=2, generator=generator).eval()
    images = torch.rand(9, 1, 8, 8, generator=generator)
    probe = FROM_RECONSTRUCTION["reconstruction"](joint, images, torch.zeros(9, dtype=torch.int64))
    seen = observe(joint, [(images, torch.zeros(9, dtype=torch.int64))], probes={"reconstruction": probe})
    with torch.no_grad():
        expected = (joint.reconstruct(images) - images).square().flatten(1).mean(1, keepdim=True)
    torch.testing.assert_close(seen.probed["reconstruction"], expected)


def test_audit_and_guard_of_any_network_with_an_autoencoder(model, known, ood, generator, tmp_path: Path):
    joined = WithAutoencoder(model, Project()).eval()
    record = caveat.audit(joined, known, ood=ood, scores=["msp", "reconstruction"], replicas=5, folder=tmp_path)
    found = {(d.score, d.ood): d.auroc.value for d in record.detections}
    assert found["reconstruction", "noise"] > 0.99
    assert [score.family for score in record.scores] == ["logits", "reconstruction"]

    guard = Guard.fit(joined, known, score="reconstruction", keep=0.9)
    labels = torch.arange(400) % CLASSES
    images = torch.cat([pictures(labels, generator), torch.rand(400, 1, 4, 4, generator=generator)])
    verdict = guard(images)
    assert verdict.accepted[:400].double().mean() > 0.8
    assert verdict.accepted[400:].double().mean() < 0.1
    expected = reconstruction.error(images, joined.reconstruct(images))
    torch.testing.assert_close(verdict.score, expected.double())
    artefact.save(guard.decision, joined.state_dict(), tmp_path / "guard")
    again = artefact.load(tmp_path / "guard", WithAutoencoder(model, Project()).eval())(images)
    assert torch.equal(again.score, verdict.score)
    assert torch.equal(again.accepted, verdict.accepted)


def test_models_that_cannot_are_refused_and_all_leaves_it_out(model, known):
    with pytest.raises(ModelError, match=r"reconstruction needs a model with `reconstruct\(inputs\)`, got Sequential"):
        caveat.audit(model, known, scores=["reconstruction"])
    with pytest.raises(ModelError, match=r"expected reconstructions of shape \(2, 1, 4, 4\), as the inputs, got"):
        caveat.audit(WithAutoencoder(model, nn.Flatten()).eval(), known, scores=["reconstruction"])
    assert "reconstruction" not in catalog.resolve(["all"])
    assert catalog.resolve(["all", "reconstruction"])[-1] == "reconstruction"
