"""From the command's arguments to a layout's plan."""

import argparse

from swin_umamba_nnunet.cli.errors import CliError
from swin_umamba_nnunet.datasets.conversion import (
    ImageSettings,
    LabelRule,
    Match,
    Plan,
    VolumeSettings,
    parse_label,
    plan_images,
    plan_isic,
    plan_synapse,
    plan_umamba,
    plan_volumes,
)


def make_plan(args: argparse.Namespace) -> Plan:
    """The plan of the layout that was asked for."""
    if args.layout == "isic":
        return plan_isic(args.source, args.val_as)
    if args.layout == "synapse":
        return plan_synapse(args.source)
    if args.layout == "umamba":
        return plan_umamba(args.source, args.published, args.allow_incomplete, args.link)
    splits = {"test_fraction": args.test_fraction, "folds": args.folds, "seed": args.seed}
    if args.layout == "images":
        return plan_images(
            args.source,
            ImageSettings(match=_match(args), labels=_labels(args), channels=args.channels, exif=args.exif, **splits),
        )
    return plan_volumes(
        args.source,
        VolumeSettings(
            match=_match(args),
            labels=_labels(args),
            modality=args.modality,
            trust_image=args.trust_image_geometry,
            **splits,
        ),
    )


def _match(args: argparse.Namespace) -> Match:
    channels, images = _named(args.images, "--images", args.layout)
    test_channels, test_images = _named(args.test_images, "--test-images", args.layout)
    if test_images and test_channels != channels:
        raise CliError(
            f"--test-images names the channels {test_channels or 'not'}, and --images {channels or 'not'}; "
            "name the same"
        )
    return Match(
        images=images,
        channels=channels,
        masks=args.masks,
        test_images=test_images,
        test_masks=args.test_masks,
        image_key=args.image_key,
        mask_key=args.mask_key,
        group=args.group_pattern,
        val_as=args.val_as,
    )


def _named(values: list[str], option: str, layout: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """["T1=a", "T2=b"] -> (("T1", "T2"), ("a", "b")); names only where there are any."""
    if layout == "images":
        if len(values) > 1:
            raise CliError(f"{option} is given several times: 2D images have their channels in one file")
        return (), tuple(values)
    pairs = [value.partition("=") if "=" in value else ("", "", value) for value in values]
    names = tuple(name.strip() for name, _, _ in pairs)
    if not any(names) and len(pairs) < 2:
        names = ()
    elif not all(names):
        raise CliError(f"{option} is given several times: name every channel, for example {option} T1='*/t1.nii.gz'")
    return names, tuple(pattern for _, _, pattern in pairs)


def _labels(args: argparse.Namespace) -> LabelRule:
    entries = tuple(parse_label(text) for text in args.label)
    threshold = getattr(args, "threshold", None)
    if threshold is not None and len([entry for entry in entries if entry.name != "background"]) > 1:
        raise CliError("--threshold makes two labels, background and one more; leave out the other --label options")
    if threshold is not None and threshold < 0:
        raise CliError(f"--threshold {threshold}: give the highest mask value that is background, for example 127")
    if args.others_are_background and not entries:
        raise CliError("--others-are-background needs at least one --label NAME=VALUE")
    return LabelRule(entries, threshold=threshold, merge_into_background=args.others_are_background)
