"""What is counted in place of a GPU: waits and copies, launches but no views, planned units."""

from __future__ import annotations

import torch

from benchmarks.engine_counts import Launches, OnDevice, Waits, blanks, unit_batches


def test_reading_a_tensor_on_the_device_is_a_wait_and_on_the_host_is_none() -> None:
    there, here = torch.arange(4.0).as_subclass(OnDevice), torch.arange(4.0)
    with Waits() as counted:
        here.sum().item()
        here.tolist()
        assert here[here > 1].numel() == 2
        (there + here).sum().item()
        there.cpu().numpy()
        assert there[there > 1].numel() == 2
        torch.tensor([1, 2])
    assert counted.waits == {"item": 1, "cpu": 1, "index by mask": 1}
    assert counted.copies == {"tensor": 1}


def test_views_and_allocations_launch_nothing() -> None:
    x = torch.empty(4, 6, device="meta")
    with Launches() as counted:
        torch.empty_like(x).view(6, 4).transpose(0, 1)[1:]
        (x @ x.T).add(1)
    assert counted.count == {"mm": 1, "add": 1}


def test_captions_that_share_an_image_need_fewer_batches() -> None:
    one, five = unit_batches(1), unit_batches(5)
    assert one > 3 * five > 30


def test_one_blank_size_leaves_next_to_no_blanks() -> None:
    figures, found = blanks()
    assert all(figure.reached for figure in figures)
    same, one = (found[title]["blank_over_clean"] for title in ("same grid", "one canonical grid"))
    assert same > 20 * one > 0
