"""The report on a source: what is there, what it becomes, and what deserves a look."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from swin_umamba_nnunet._text import by
from swin_umamba_nnunet.datasets._checks import Inspection, Measured
from swin_umamba_nnunet.datasets._model import Finding

SHOWN = 8  # names per finding; conversion.json has them all


def format_report(inspection: Inspection) -> str:
    """The report as text for a terminal."""
    conversion = inspection.conversion
    lines = [f"source       {conversion.source}", *_counts(inspection)]
    lines += _sizes(list(inspection.measured.values()))
    lines.append(f"channels     {', '.join(conversion.channels)}   (files: {conversion.ending})")
    lines += _labels(inspection)
    for severity, title in (("note", "Notes"), ("warning", "Please look at"), ("error", "Errors")):
        findings = [finding for finding in inspection.findings if finding.severity == severity]
        if findings:
            lines += ["", f"{title}:", *_findings(findings)]
    return "\n".join(lines)


def _counts(inspection: Inspection) -> list[str]:
    parts = Counter(case.part for case in inspection.cases)
    text = f"{parts['train'] + parts['val']} training, {parts['test']} test"
    if parts["val"]:
        text += f"   ({parts['val']} of the training cases validate in fold 0)"
    if inspection.left_out:
        text += f"   ({inspection.left_out} left out)"
    lines = [f"cases        {text}"]
    groups = {case.group: case.part == "test" for case in inspection.cases if case.group is not None}
    if groups:
        tests = sum(groups.values())
        lines.append(f"groups       {len(groups)}, of which {tests} in the test set; no group is on both sides")
    if inspection.conversion.folds and not inspection.errors:
        sizes = ", ".join(str(len(fold["val"])) for fold in inspection.folds)
        lines.append(f"folds        validation cases per fold: {sizes}")
    return lines


def _sizes(measured: Sequence[Measured]) -> list[str]:
    if not measured:
        return []
    shapes = Counter(each.shape for each in measured)
    text = ", ".join(f"{by(shape)} ({count} cases)" for shape, count in shapes.most_common(4))
    if len(shapes) > 4:
        alike = len({len(shape) for shape in shapes}) == 1
        spans = by(f"{min(row)} to {max(row)}" for row in zip(*shapes)) if alike else "mixed"
        text += f", ... {len(shapes)} sizes: {spans}"
    order = "slices x rows x columns" if any(len(shape) == 3 for shape in shapes) else "rows x columns"
    lines = [f"sizes        {text}   [{order}]"]
    spacings = Counter(by(f"{round(s, 3):g}" for s in each.spacing) for each in measured if each.spacing)
    if spacings:
        shown = ", ".join(f"{spacing} ({count} cases)" for spacing, count in spacings.most_common(3))
        more = f", ... {len(spacings)} spacings" if len(spacings) > 3 else ""
        lines.append(f"spacing      {shown}{more}   [mm, {order}]")
    dtypes = Counter(each.dtype for each in measured)
    lines.append(f"numbers      {', '.join(f'{dtype} ({count} cases)' for dtype, count in dtypes.most_common())}")
    return lines


def _labels(inspection: Inspection) -> list[str]:
    labels = inspection.labels
    if labels is None:
        return []
    pixels: Counter[int] = Counter()
    cases: Counter[int] = Counter()
    for each in inspection.measured.values():
        values = each.of_mask(labels.colour)
        if not labels.unknown(values):
            counts = labels.count(values)
            pixels.update(counts)
            cases.update(counts.keys())
    if not pixels:  # no mask was found or could be read, which is among the errors
        return []
    raw = defaultdict(list)
    for value in sorted(labels.lookup.keys() - labels.unlisted):
        raw[labels.lookup[value]].append(labels.show(value))
    lines = ["labels"]
    width = max(len(name) for name in labels.names)
    for name, label in labels.names.items():
        source = ", ".join(raw[label]) or "-"
        if labels.threshold is not None:
            source = f"{'above' if label else 'up to'} {labels.threshold}"
        share = f"{100 * pixels[label] / pixels.total():.3g} % of pixels"
        lines.append(f"  {label:3d}  {name:{width}s}  mask value {source:9s} in {cases[label]} masks, {share}")
    return lines


def _findings(findings: Sequence[Finding]) -> list[str]:
    by_topic = defaultdict(list)
    for finding in findings:
        by_topic[finding.topic].append(finding)
    lines = []
    for topic, group in by_topic.items():
        named = [f"      {': '.join(filter(None, (f.case, f.detail)))}" for f in group if f.case or f.detail]
        count = f" ({len(group)} times)" if len(group) > 1 else ""
        lines += [f"  - {topic}{count}{':' if named else ''}", *named[:SHOWN]]
        if len(named) > SHOWN:
            lines.append(f"      ... and {len(named) - SHOWN} more")
    return lines
