"""The figures of an analysis: they show the numbers, fit any model, and are files that repeat."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from reports.analysis_fixture import analysis, layer
from torch import nn

import curvlab
from curvlab.analyses.fop_figures import entry_histograms, heat_maps, spectra
from curvlab.errors import CurvlabError
from curvlab.formats.curvlab_file.fop_matrices import FopMatrices
from curvlab.formats.curvlab_file.fop_snapshots import fop_snapshots
from curvlab.reports.analysis_figures import analysis_figures
from curvlab.reports.plots import draw, picture


def plot_analysis(result, folder, checkpoint=None):
    return draw(analysis_figures(result, checkpoint), folder)


def drawn(result, name):
    found = {figure.name: figure for figure in analysis_figures(result)}
    return picture(found[name]) if name in found else None


def save(path, seed, names=("conv", "one", "fc")):
    torch.manual_seed(0)
    parts = (nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(16, 5))
    module = nn.Sequential()
    for name, part in zip(names, parts, strict=True):
        module.add_module(name, part)
    torch.manual_seed(seed)
    factors = {
        f"{name}.weight": torch.eye(d) + 0.1 * torch.randn(d, d) for name, d in zip(names, (9, 1, 16), strict=True)
    }
    fop = FopMatrices(factors, dict.fromkeys(factors, "full"), dict.fromkeys(factors, False))
    curvlab.save(path, module, fop=fop)
    return {name: (m @ m.T).double().numpy() for name, m in factors.items()}


@pytest.fixture
def run(tmp_path):
    """A training run's folder with two snapshots: its analysis, checkpoint, and P of every parameter at the end."""
    (tmp_path / "run" / "snapshots").mkdir(parents=True)
    save(tmp_path / "run" / "snapshots" / "epoch-0001.safetensors", 1)
    save(tmp_path / "run" / "snapshots" / "epoch-0002.safetensors", 2)
    matrices = save(tmp_path / "run" / "model.safetensors", 2)
    checkpoint = curvlab.load(tmp_path / "run" / "model.safetensors")
    return curvlab.analyze(checkpoint), checkpoint, matrices


def test_every_figure_is_written_as_png_and_svg_and_repeats(run, tmp_path):
    result, checkpoint, _ = run
    first = plot_analysis(result, tmp_path / "a" / "b", checkpoint)
    stems = ["condition-numbers", "fop-heat-maps", "fop-eigenvalues", "fop-values"]
    assert [path.name for path in first] == [f"{stem}.{kind}" for stem in stems for kind in ("png", "svg")]
    again = plot_analysis(result, tmp_path / "c", checkpoint)
    for one, other in zip(first, again, strict=True):
        assert one.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")
        assert one.read_bytes() == other.read_bytes()


def test_heat_maps_are_the_matrices_and_show_what_is_off_the_diagonal(run):
    result, checkpoint, matrices = run
    figure = picture(heat_maps(result.fop, checkpoint.fop))
    images = [axes.images[0] for axes in figure.axes if axes.images]
    assert next(axes.get_title() for axes in figure.axes if axes.images).startswith("conv: diagonal 1.")
    wanted = [matrices["conv.weight"], matrices["fc.weight"]]  # a 1×1 kernel has a rate, no map
    for image, p in zip(images, wanted, strict=True):
        np.testing.assert_allclose(image.get_array(), p, atol=1e-6)
        off = np.abs(p - np.diag(np.diag(p))).max()
        assert image.get_clim() == (pytest.approx(-off, rel=1e-5), pytest.approx(off, rel=1e-5))
    labels = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert labels == ["0,0", "0,1", "0,2", "1,0", "1,1", "1,2", "2,0", "2,1", "2,2"]


def test_eigenvalues_are_sorted_downwards(run):
    result, checkpoint, matrices = run
    figure = picture(spectra(result.fop, checkpoint.fop))
    lines = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    assert [line.get_label() for line in lines] == ["conv", "one", "fc"]
    for line, p in zip(lines, matrices.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), np.linalg.eigvalsh(p)[::-1], rtol=1e-5)
        assert 0 <= min(line.get_xdata()) <= max(line.get_xdata()) <= 1  # sizes differ: shares


def test_histograms_hold_every_entry_of_every_snapshot(run):
    result, checkpoint, matrices = run
    figure = picture(entry_histograms(result.fop, fop_snapshots(checkpoint.path)))
    assert [axes.get_title() for axes in figure.axes] == ["conv", "fc"]
    lines = figure.axes[0].lines
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["epoch 2", "epoch 1"]
    entries = (matrices["conv.weight"] - np.eye(9)).flatten()
    places, heights = lines[-1].get_data()  # the last is in front, on the ground
    width = places[1] - places[0]
    edges = np.append(places - width / 2, places[-1] + width / 2)
    counts = np.histogram(entries, edges)[0]
    assert counts.sum() == 81
    # float32 products may fall on the other side of an edge
    assert np.abs(heights / heights.max() - counts / counts.max()).max() * counts.max() < 1.01
    assert entry_histograms(result.fop, fop_snapshots(checkpoint.path)[:1]) is None


def test_spectra_are_the_quantiles_without_zeros():
    result = analysis()
    figure = drawn(result, "spectra")
    line = figure.axes[0].lines[0]
    np.testing.assert_equal(line.get_ydata(), [np.nan, *result.layers[0].kfac.input_factor.quantiles[1:]])
    assert [axes.get_title() for axes in figure.axes] == ["input factor A", "gradient factor G"]
    assert len(figure.axes[0].lines) == 2
    assert drawn(replace(result, layers=result.layers[2:]), "spectra") is None


def test_bars_are_condition_numbers_and_singular_ones_are_hatched():
    result = analysis()
    bars = drawn(result, "condition-numbers").axes[0].patches
    heights = {(round(bar.get_x() + bar.get_width() / 2), bar.get_height(), bool(bar.get_hatch())) for bar in bars}
    assert (0, 12.25, False) in heights
    assert (1, 3.25e5, True) in heights
    assert (1, 93.75, False) in heights
    assert len(bars) == 8
    weights = replace(result, layers=tuple(one.having(moments=None) for one in result.layers))
    assert [bar.get_height() for bar in drawn(weights, "condition-numbers").axes[0].patches] == [1530, 1530]


HOSTILE = "\x1b[2J$\\frac{1}{0$ 模型_{}" + "x" * 300


def test_names_from_an_enemy_and_models_of_any_depth_are_drawn(tmp_path):
    many = tuple(layer(f"blocks.{i}.{HOSTILE}", "Linear", (20, 64), 2.0) for i in range(60))
    assert len(plot_analysis(analysis(extra=many), tmp_path / "many")) == 4
    name = HOSTILE.replace(".", "")
    matrices = save(tmp_path / "model.safetensors", 1, (name, "two", "three"))
    checkpoint = curvlab.load(tmp_path / "model.safetensors")
    assert len(plot_analysis(curvlab.analyze(checkpoint), tmp_path / "one", checkpoint)) == 6
    assert matrices


def test_what_cannot_be_drawn_is_left_out(tmp_path):
    empty = replace(analysis(), layers=())
    assert plot_analysis(empty, tmp_path / "none") == ()
    assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CurvlabError, match="cannot be written to"):
        plot_analysis(analysis(), tmp_path / "file" / "x")


def test_matplotlib_is_imported_when_something_is_drawn_and_not_before(tmp_path):
    import subprocess
    import sys

    code = "import sys, curvlab.reports.plots, curvlab.reports.analysis_figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
