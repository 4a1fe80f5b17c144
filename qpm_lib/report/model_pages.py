"""Pages of the report about the model: what each feature answers to, what each class consists of, and where it goes wrong, and why."""

import html
from pathlib import Path
from typing import NamedTuple

import numpy as np

from qpm_lib.data import read_image
from qpm_lib.explain import compare_classes
from qpm_lib.model import DinoQPM
from qpm_lib.plotting import Canvas, feature_colours, to_jpeg
from qpm_lib.report.drawings import class_page, feature_page, matrix_svg, shared_tree, tree_html
from qpm_lib.runs import Snapshot

_PANEL, _PER_CLASS, _PER_FEATURE = 135, 12, 8  # seven panels fit the page


class Page(NamedTuple):
    """A page of the report: title and body."""

    title: str
    body: str


class ModelPages:
    """Pages of one model; pictures they need are written below `folder`.

    Parameters
    ----------
    snapshot : its answers, with `pictures/` already in `folder`.
    """

    def __init__(self, model: DinoQPM, snapshot: Snapshot, folder: Path) -> None:
        self.model, self.snapshot, self.folder = model, snapshot, folder
        self.weight, self.bias = model.class_weight.cpu().numpy(), model.head.bias.cpu().numpy()
        self.used, self.colours = self.weight != 0, feature_colours(self.weight)
        strengths = np.unique(self.weight[self.used])
        # whether a class is a set of features, and nothing else
        self.alike = bool(len(strengths) == 1 and strengths[0] > 0 and np.ptp(self.bias) == 0)
        self.classes, self.features = (
            [html.escape(n) for n in model.class_names],
            [html.escape(n) for n in model.feature_names],
        )
        self.truth, self.answer = snapshot.labels[snapshot.kept], snapshot.predicted[snapshot.kept]
        self.total = np.bincount(snapshot.labels, minlength=len(self.classes))
        self.right = np.bincount(snapshot.labels[snapshot.labels == snapshot.predicted], minlength=len(self.classes))

    # -- small parts --------------------------------------------------------------------------------------------------------------

    def chip(self, f: int, sign: float = 1.0) -> str:
        """A feature as a coloured link."""
        against = " (against)" if sign < 0 else ""
        return f'<a class="chip" style="border-color:{self.colours[f]}" href="{feature_page(f)}">{self.features[f]}{against}</a>'

    def class_link(self, c: int) -> str:
        """A class as a link."""
        return f'<a href="{class_page(c)}">{self.classes[c]}</a>'

    def thumb(self, position: int) -> str:
        """A kept picture, linked to the explorer."""
        row, truth, answer = self.snapshot.rows[position], self.truth[position], self.answer[position]
        said = "right" if truth == answer else f"predicted {self.classes[answer]}"
        text = f"{self.classes[truth]}, {said}"
        mark = "" if truth == answer else ' class="wrong"'
        return (
            f'<a href="explorer.html#{row}" title="{text}"><img{mark} loading="lazy" width="96" height="96" '
            f'src="pictures/{row}.jpg" alt="Picture {row}: {text}"></a>'
        )

    def panels(self, position: int, groups: list[list[int]], name: str) -> str:
        """Write a strip: the picture, then one panel for each group of features; return its path."""
        canvas = Canvas(
            read_image(self.folder / "pictures" / f"{self.snapshot.rows[position]}.jpg"),
            {f: self.snapshot.heat(position)[f] for f in sorted({f for group in groups for f in group})},
            self.colours,
            side=_PANEL,
        )
        strip = np.concatenate(
            [canvas.plain, *(canvas.blend(group) if group else canvas.plain for group in groups)], axis=1
        )
        (self.folder / "strips").mkdir(exist_ok=True)
        (self.folder / "strips" / f"{name}.jpg").write_bytes(to_jpeg(strip))
        return f"strips/{name}.jpg"

    # -- features -----------------------------------------------------------------------------------------------------------------

    def all_features(self) -> Page:
        """Every feature with its examples."""
        parts = [
            "<h1>Features</h1><p>Each strip shows the training pictures on which a feature is strongest, with its map. A name can be given "
            "in the explorer of chapter 7.</p>"
        ]
        for f in range(len(self.features)):
            users = np.flatnonzero(self.used[:, f])
            parts.append(
                f"<section><h2>{self.chip(f)}</h2>{self._examples(f)}<p>{counted(len(users), 'class', 'classes')}.</p></section>"
            )
        return Page("Features", "".join(parts))

    def _examples(self, f: int) -> str:
        if not (self.folder / "examples" / f"feature_{f:02d}.jpg").exists():
            return "<p>The model folder holds no examples of it.</p>"
        alt = f"{self.features[f]}: its map over the training pictures on which it is strongest"
        return f'<div class="wide"><img loading="lazy" src="examples/feature_{f:02d}.jpg" alt="{alt}"></div>'

    def feature(self, f: int) -> Page:
        """One feature: where it fires, which classes have it, between which it decides."""
        users = np.flatnonzero(self.used[:, f]).tolist()
        listed = "".join(f"<li>{self.class_link(c)}{' (against)' if self.weight[c, f] < 0 else ''}</li>" for c in users)
        parts = [f"<h1>{self.chip(f)}</h1><p>The training pictures on which it is strongest:</p>{self._examples(f)}"]
        best = np.argsort(-self.snapshot.values[:, f], kind="stable")[:_PER_FEATURE].tolist()
        parts.append(
            "<h2>Test pictures</h2><p>Of those in this report, it is strongest on these (open them in the explorer):</p>"
        )
        parts.append(f'<p class="thumbs">{"".join(map(self.thumb, best))}</p>')
        parts.append(
            f"<h2>Classes</h2><p>{counted(len(users), 'class has', 'classes have')} it:</p><ul>{listed}</ul>"
            if users
            else "<h2>Classes</h2><p>No class has it.</p>"
        )
        if pairs := self._decided_by(f):
            parts.append(
                "<h2>Where it decides</h2><p>These classes have all other features in common, but for one each: this feature decides.</p>"
                f"<ul>{''.join(f'<li>{self.class_link(a)}, not {self.class_link(b)}</li>' for a, b in pairs)}</ul>"
            )
        return Page(self.model.feature_names[f], "".join(parts))

    def _decided_by(self, f: int) -> list[tuple[int, int]]:
        """Pairs of a class with the feature and one without it that share all their other features but one; none where weights differ."""
        shared = self.used.astype(int) @ self.used.T.astype(int)
        sizes = self.used.sum(1)
        near = (shared == sizes[:, None] - 1) & (shared == sizes - 1) & self.used[:, [f]] & ~self.used[:, f]
        return [(int(a), int(b)) for a, b in np.argwhere(near)] if self.alike else []

    # -- classes ------------------------------------------------------------------------------------------------------------------

    def all_classes(self) -> Page:
        """The matrix, the tree, and every class in a line."""
        rows = "".join(
            f"<tr><td>{self.class_link(c)}</td><td>{self._score(c)}</td><td>{self._chips(c)}</td></tr>"
            for c in range(len(self.classes))
        )
        return Page(
            "Classes",
            "<h1>Classes</h1><p>" + self._nature() + f" {self.matrix_words()}</p>{self.matrix()}"
            "<h2>As a tree of shared features</h2><p>A branch lists what all classes below it have in common; a class, what it has beyond "
            f"that.</p>{tree_html(shared_tree(self.weight), self.model.class_names, self.chip)}"
            "<h2>One by one</h2><table><thead><tr><th>class</th><th>right</th><th>features</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>",
        )

    def _nature(self) -> str:
        if self.alike:
            return "A class is its features, and nothing else."
        return "A class is its features and how much each counts" + (", and its bias." if self.bias.any() else ".")

    def matrix_words(self) -> str:
        """How to read the matrix."""
        hollow = " A hollow square is a feature that speaks against the class." if (self.weight < 0).any() else ""
        return f"Every square is a class (row) that has a feature (column); neighbours share features.{hollow}"

    def matrix(self) -> str:
        """The matrix of classes and features."""
        return matrix_svg(self.weight, self.model.class_names, self.model.feature_names, self.colours)

    def _score(self, c: int) -> str:
        return f"{self.right[c]} of {self.total[c]}"

    def _chips(self, c: int) -> str:
        chips = (
            " ".join(self.chip(f, float(self.weight[c, f])) for f in np.flatnonzero(self.used[c]).tolist())
            or "no features"
        )
        return chips if self.alike or not self.bias[c] else f"{chips} and the bias {self.bias[c]:+.2f}"

    def one_class(self, c: int) -> Page:
        """One class: its features on a typical picture, its neighbours, its pictures, what it is taken for."""
        parts = [
            f"<h1>{self.classes[c]}</h1><p>{self._score(c)} test pictures answered rightly. Features: {self._chips(c)}</p>"
        ]
        mine = np.flatnonzero(self.truth == c)
        right = mine[self.answer[mine] == c].tolist()
        features = np.flatnonzero(self.used[c]).tolist()
        if right and features:
            path = self.panels(right[0], [features, *([f] for f in features)], f"class_{c:03d}")
            names = ", ".join(self.features[f] for f in features)
            parts.append(
                f'<figure><div class="wide"><img src="{path}" alt="A typical picture; all features; then one by one: {names}"></div>'
                f"<figcaption>A typical picture, all features, then one by one: {names}.</figcaption></figure>"
            )
        elif features:
            parts.append(
                "<p>None of the pictures of this report was answered rightly as this class, so none can stand for it.</p>"
            )
        parts.append(self._neighbours(c))
        if len(mine):
            shown = sorted(mine.tolist(), key=lambda i: self.answer[i] == c)[:_PER_CLASS]  # mistakes first
            parts.append(f'<h2>Pictures</h2><p class="thumbs">{"".join(map(self.thumb, shown))}</p>')
        parts.append(self._taken_for(c))
        return Page(self.model.class_names[c], "".join(parts))

    def _neighbours(self, c: int) -> str:
        """The classes that share most features (for or against alike), among equals those that are taken for this one or it for them."""
        signs = np.sign(self.weight)
        common = (signs == signs[c]) & self.used
        shared, labels, predicted = common.sum(1), self.snapshot.labels, self.snapshot.predicted
        mixed = np.bincount(predicted[labels == c], minlength=len(shared)) + np.bincount(
            labels[predicted == c], minlength=len(shared)
        )
        near = [d for d in np.lexsort((-mixed, -shared)).tolist() if d != c and shared[d] > 0][:3]
        lines = []
        for d in near:
            own, other = (np.flatnonzero(self.used[x] & ~common[d]).tolist() for x in (c, d))
            mine = ", ".join(self.chip(f, float(self.weight[c, f])) for f in own) or "none"
            theirs = ", ".join(self.chip(f, float(self.weight[d, f])) for f in other) or "none"
            lines.append(f"<li>{self.class_link(d)} shares {shared[d]}. Only here: {mine}; only there: {theirs}.</li>")
        return f"<h2>Nearest classes</h2><ul>{''.join(lines)}</ul>" if lines else ""

    def _taken_for(self, c: int) -> str:
        labels, predicted = self.snapshot.labels, self.snapshot.predicted
        wrong = np.bincount(predicted[(labels == c) & (predicted != c)], minlength=len(self.classes))
        others = [d for d in np.argsort(-wrong, kind="stable").tolist() if wrong[d]]
        listed = "".join(f"<li>{self.class_link(d)}: {wrong[d]}</li>" for d in others)
        return f"<h2>Taken for</h2><ul>{listed}</ul>" if others else ""

    # -- mistakes -----------------------------------------------------------------------------------------------------------------

    def mistakes(self) -> Page:
        """Wrong answers with the features that made them."""
        wrong, n = np.flatnonzero(self.truth != self.answer), len(self.snapshot.labels)
        count = int((self.snapshot.labels != self.snapshot.predicted).sum())
        if not count:
            return Page("Mistakes", f"<h1>Mistakes</h1><p>None: all {n} test pictures are answered rightly.</p>")
        fewer = f"; the {len(wrong)} surest of them are here" if len(wrong) < count else ""
        intro = (
            f"<h1>Mistakes</h1><p>{counted(count, 'test picture is', 'test pictures are')} answered wrongly, of {n}{fewer}. Each mistake shows the "
            "picture, where the features fire that only the answer has, and where those fire that only the truth has. The list says what each "
            "of them adds to the lead of the answer, and how strong it is here beside the test pictures of the true class that are "
            "answered rightly (usual is their median). What changed the lead most comes first.</p>"
        )
        return Page("Mistakes", intro + self._pairs() + "".join(self._mistake(int(i)) for i in wrong))

    def _pairs(self) -> str:
        labels, predicted, c = self.snapshot.labels, self.snapshot.predicted, len(self.classes)
        wrong = labels != predicted
        counts = np.bincount(labels[wrong] * c + predicted[wrong], minlength=1)
        rows = "".join(
            f"<tr><td>{self.class_link(code // c)}</td><td>{self.class_link(code % c)}</td><td>{counts[code]}</td></tr>"
            for code in np.argsort(-counts, kind="stable")[:10].tolist()
            if counts[code]
        )
        return (
            "<h2>Most frequent</h2><table><thead><tr><th>truth</th><th>answer</th><th>pictures</th></tr></thead>"
            f"<tbody>{rows}</tbody></table><h2>One by one</h2>"
        )

    def _mistake(self, position: int) -> str:
        truth, answer, row = int(self.truth[position]), int(self.answer[position]), self.snapshot.rows[position]
        values = self.snapshot.values[position]
        groups = compare_classes(self.model.class_weight, answer, truth)
        mine, theirs = groups.only_a.tolist(), groups.only_b.tolist()
        scores = self.weight[[answer, truth]] @ values + self.bias[[answer, truth]]
        added = (self.weight[answer] - self.weight[truth]) * values
        rest = scores[0] - scores[1] - added[[*mine, *theirs]].sum()
        others = (
            f"<li>features that both have, with different weights, and the bias: {rest:+.2f}</li>"
            if abs(rest) >= 0.005
            else ""
        )
        moved = (self.weight[answer] - self.weight[truth]) * (values - self.snapshot.typical[truth])
        path = self.panels(position, [mine, theirs], f"mistake_{row}")
        alt = f"Picture {row}; where features of the answer only fire; where features of the truth only fire"
        ordered = sorted([*mine, *theirs], key=lambda f: -moved[f])
        lines = "".join(self._reason(f, position, float(added[f]), float(moved[f]), f in mine) for f in ordered)
        usually = scores[0] - scores[1] - moved.sum()  # the lead of the answer at the usual values of the truth
        leader = "the truth" if usually < 0 else "even then the answer"
        return (
            f'<section id="m{row}"><h3>{self.class_link(truth)}, answered {self.class_link(answer)}</h3>'
            f'<p><a href="explorer.html#{row}"><img loading="lazy" src="{path}" alt="{alt}"></a></p>'
            f"<p>The answer leads by {scores[0] - scores[1]:.2f} ({scores[0]:.2f} against {scores[1]:.2f}); with the usual values of the truth, "
            f"{leader} would lead by {abs(usually):.2f}.</p><ul>{lines}{others}</ul></section>"
        )

    def _reason(self, f: int, position: int, added: float, moved: float, of_answer: bool) -> str:
        truth, value = self.truth[position], float(self.snapshot.values[position, f])
        usual, below = float(self.snapshot.typical[truth, f]), float(self.snapshot.below[position, f])
        c = self.answer[position] if of_answer else truth
        whose = "only the answer has it" if of_answer else "only the truth has it"
        if value < usual:
            rank = f"weaker than in {_share(1 - below)} of them"
        else:
            rank = f"stronger than in {_share(below)} of them" if below >= 0.5 else "as in most of them"
        return f"<li>{self.chip(f, float(self.weight[c, f]))} <b>{added:+.2f}</b>, usually {added - moved:+.2f}: {whose}, and it is {rank}.</li>"

    # -- all ----------------------------------------------------------------------------------------------------------------------

    def pages(self) -> dict[str, Page]:
        """Every page by file name."""
        pages = {
            "classes.html": self.all_classes(),
            "features.html": self.all_features(),
            "mistakes.html": self.mistakes(),
        }
        pages |= {class_page(c): self.one_class(c) for c in range(len(self.classes))}
        return pages | {feature_page(f): self.feature(f) for f in range(len(self.features))}


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many}"


def _share(part: float) -> str:
    return "all" if part > 0.995 else f"{100 * part:.0f} %"
