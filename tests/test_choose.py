"""The page "How to choose": its data against what the chapters say, its table, and its helper in a browser."""

import ast
import json
import math
import re

import choose
import front_page
import pytest
import rosetta
import torch
from browser import ROOT, built_book, needs_chromium
from test_explorers import HEIGHTS, OVERLAPS, SHIFT

DATA = choose.data()
FACTS = list(choose.facts(DATA))
KEYS = set(re.findall(r"^@\w+\{([^,]+),", (ROOT / "book" / "references.bib").read_text(encoding="utf-8"), re.MULTILINE))


class Toy(torch.nn.Module):
    """Something with an embedding, hidden matrices, vectors and a head."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(5, 4)
        self.hidden = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 4))
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.hidden(self.embed(x)))


# Data and table ------------------------------------------------------------------------------------------------------


def test_every_task_has_a_row_for_every_optimizer():
    rows = [(row["task"], row["optimizer"]) for row in DATA["rows"]]
    assert sorted(rows) == sorted((task, optimizer) for task in DATA["tasks"] for optimizer in DATA["optimizers"])


def test_every_fact_is_measured_or_cited_or_a_guess():
    for fact in FACTS:
        assert {key for key in ("claim", "by", "why") if key in fact} in (
            {"claim"},
            {"by"},
            {"why"},
            {"claim", "by"},
        ), fact
        assert set(fact.get("by", "").split(",")) <= KEYS | {""}, fact


def test_a_number_measured_here_stands_in_what_the_chapter_printed():
    found = [fact for fact in FACTS if "found" in fact]
    assert len(found) >= 8
    for fact in found:
        numbers = re.findall(fact["found"], choose.told(choose.settled_in(fact["claim"])))
        assert len(set(numbers)) == 1, f"{fact['found']} is not one number: {numbers}"
        assert fact.get("rate", float(numbers[0])) == float(numbers[0])
    assert choose.measured({"claim": "M1", "found": r"18,000 +AdamW +([\d.]+) +[\d.]+ to"}) > 0
    with pytest.raises(ValueError, match="nowhere in what language_model says"):
        choose.measured({"claim": "M1", "found": "AdamW ends at ([0-9]+) degrees"})
    with pytest.raises(ValueError, match="claim='M0': .* no chapter settles it"):
        choose.settled_in("M0")


def test_a_rate_at_the_end_of_what_was_tried_says_so():
    notebook = json.loads((ROOT / "book" / "adamw.ipynb").read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"]]
    (made,) = (source for source in sources if "ETAS = MIDDLE * 2.0 ** np.arange(-2, 3)" in source)
    highest = 4 * float(re.search(r"MIDDLE = lrlib.at_scale\(tour=([\d.]+)", made)[1])
    (entry,) = (e for e in row_of("pictures-scratch", "adamw")["start"] if e.get("claim") == "M8")
    assert (entry["rate"] == highest) == ("the highest rate tried" in entry["on"])
    (like,) = (e for e in row_of("language-scratch", "adam")["start"] if "claim" in e)
    assert like["on"].endswith(", by AdamW")


def test_a_rule_measured_here_stands_on_the_verdict_that_it_names():
    rules = [fact for fact in FACTS if "verdict" in fact and "by" not in fact]
    assert len(rules) >= 8
    for fact in rules:
        assert choose.ledger().verdict(fact["claim"]) == fact["verdict"], fact


def test_the_text_of_the_page_stands_on_verdicts_that_have_not_changed():
    links = set(re.findall(r'(\w+)\.html#claim-(\w+)"', (ROOT / "book" / "choose.md").read_text(encoding="utf-8")))
    read = {claim: verdict for verdict, claims in DATA["verdicts"].items() for claim in claims.split()}
    assert {claim for _, claim in links} == set(read)
    changed = {claim: choose.ledger().verdict(claim) for claim in read if choose.ledger().verdict(claim) != read[claim]}
    assert not changed, "read what book/choose.md says of these again, then note the verdicts in data/choose.json"
    assert all(any(place.chapter == chapter for place in choose.ledger().settled[claim]) for chapter, claim in links)


def test_what_is_cited_becomes_measured_once_its_claim_is_settled_so():
    fact = {"by": "yang2021tensor", "claim": "J9", "verdict": "holds"}
    assert choose.source(fact).startswith("● ")
    assert choose.source(fact | {"verdict": "corrected"}).startswith("○ ")
    assert choose.source(fact | {"claim": "J0"}).startswith("○ ")


def test_rates_lie_in_the_range_to_search_and_those_of_papers_fall_with_the_size():
    for row in DATA["rows"]:
        rates = [entry["rate"] for entry in row["start"]]
        cited = [entry["rate"] for entry in row["start"] if "claim" not in entry]
        assert cited == sorted(cited, reverse=True)
        assert [entry.get("above", 0) for entry in row["start"]] == sorted(e.get("above", 0) for e in row["start"])
        gpt3 = 3_200_000  # the one batch that the slider, which has powers of two, can only come near
        assert all(entry["batch"] in (2 ** round(math.log2(entry["batch"])), gpt3) for entry in row["start"])
        low, high = row["search"].get("range", (0, math.inf))
        assert all(low <= rate <= high for rate in rates), row["id"]


def test_the_table_says_where_each_cell_is_from():
    lines = choose.table(DATA).splitlines()
    assert len(lines) == 2 + len(DATA["rows"])
    for line in lines[2:]:
        name, *cells = line.strip("| ").split(" | ")
        assert len(cells) == len(choose.COLUMNS)
        for cell in cells:
            assert re.search(
                r'● <a href="\w+\.html#claim-\w+">|○ <span class="lr-from">\{cite:p\}`|◇ <span class="lr-from">\w', cell
            ), (name, cell)


def test_the_axes_of_the_front_picture_stand_where_its_rates_are():
    text = (ROOT / "book" / "index.md").read_text(encoding="utf-8")
    for axis, side, (low, high) in (("x", "left", front_page.FIRST), ("y", "bottom", front_page.SECOND)):
        ticks = re.findall(rf'<span class="lr-{axis}" style="{side}: ([\d.]+)%" aria-hidden="true">([\d.]+)<', text)
        assert len(ticks) == 3
        for place, rate in ticks:
            assert float(place) == pytest.approx(100 * (math.log10(float(rate)) - low) / (high - low), abs=0.3)
        assert f"{10**low:.2g} to {10**high:.2g}" in text


# The helper in a browser ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def url():
    return (built_book() / "book" / "choose.html").as_uri()


def opened(browser, url, width=1280, **options):
    page = browser.new_page(viewport={"width": width, "height": 900}, **options)
    page.goto(url)
    page.locator("#explorer-choose").scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('#explorer-choose[data-live] .lr-readout')?.textContent")
    return page


@pytest.fixture(scope="module")
def page(browser, url):
    return opened(browser, url)


@needs_chromium
def test_the_table_shows_its_sources_when_asked_to(browser, url):
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(url)
    table = page.locator("table:has([id^='row-'])")
    before = table.evaluate("table => [table.offsetHeight, table.innerText, table.offsetWidth]")
    page.get_by_label("Show papers").check()
    after = table.evaluate("table => [table.offsetHeight, table.innerText]")
    assert "Devlin" in after[1] and "Devlin" not in before[1] and "○" in before[1]
    assert before[0] < 0.8 * after[0]
    assert before[2] <= table.evaluate("table => table.parentElement.clientWidth")  # nothing to scroll for at the side
    page.close()


CHOICES = [
    {"task": row["task"], "optimizer": row["optimizer"], "size": float(size), "batch": batch, "steps": steps}
    for row in DATA["rows"]
    for size in DATA["sizes"]
    for batch, steps in ((1, 100), (32, 1000), (256, 160), (2**19, 100_000), (2**20, 50_000))
]


@pytest.fixture(scope="module")
def advice(page):
    return page.evaluate("(cs) => cs.map((c) => [LR.formulas.choose.advise(c), LR.formulas.choose.lines(c)])", CHOICES)


def row_of(task, optimizer):
    (row,) = [row for row in DATA["rows"] if (row["task"], row["optimizer"]) == (task, optimizer)]
    return row


def expected_rate(choice):
    """The rate by the table: that of the size, scaled with the batch, and with the length where both are known."""
    row = row_of(choice["task"], choice["optimizer"])
    entry = [entry for entry in row["start"] if entry.get("above", 0) <= choice["size"]][-1]
    k = min(choice["batch"] / entry["batch"], 32)
    rate = entry["rate"] * (k if choice["optimizer"] == "sgd" else math.sqrt(k))
    rule = re.search(r"η / k<sup>([\d.]+)</sup>", choose.change(DATA, row, "length")["value"])
    if "seen" in entry:
        longer = choice["batch"] * choice["steps"] / entry["seen"]
        rate /= min(max(longer, 1 / 16), 16) ** float(rule[1])
    return entry, rate


def test_longer_language_models_wanted_as_much_or_less_than_the_helper_gives():
    said = choose.told("language_model")
    own = {  # the best rates of the book's longer runs, by batch in characters and updates
        (1024, 600): re.search(r"800,000 +AdamW +([\d.]+) ", said),
        (1024, 900): re.search(r"800,000 +AdamW, 1.5 T +([\d.]+) ", said),
        (1024, 1500): re.search(r"65,000 parameters.*?\nlinear +([\d.]+) ", said, re.DOTALL),
    }
    for (batch, steps), found in own.items():
        choice = {"task": "language-scratch", "optimizer": "adamw", "size": 1e5, "batch": batch, "steps": steps}
        entry, rate = expected_rate(choice)
        share = float(found[1]) / rate
        assert (0.8 < share < 1) if steps == 600 else (0.2 < share < 0.6)
        assert 1 / entry["search"]["down"] < share < entry["search"]["factor"]


@needs_chromium
def test_every_choice_gives_its_row_of_the_table(page, advice):
    for choice, (told, _) in zip(CHOICES, advice, strict=True):
        entry, rate = expected_rate(choice)
        assert told["row"]["id"] == f"{choice['task']}-{choice['optimizer']}"
        assert told["rate"] == pytest.approx(rate, rel=0.05)
        assert told["range"][0] <= told["rate"] <= told["range"][1]
        search = entry.get("search", row_of(choice["task"], choice["optimizer"])["search"])
        if "factor" in search:
            low = rate if search.get("upwards") else rate / search.get("down", search["factor"])
            assert told["range"] == pytest.approx([low, rate * search["factor"]], rel=0.05)
        assert told["sure"] == ("measured" if "claim" in entry else "practice" if "by" in entry else "guess")
        assert 1 <= told["warmup"] < choice["steps"] / 5
    assert page.locator("[id^='row-']").count() == len(DATA["rows"])


@needs_chromium
def test_a_longer_run_gets_a_lower_rate_only_where_there_is_a_rule_for_the_length(page):
    for row in DATA["rows"]:
        for entry in row["start"]:
            size = max(entry.get("above", 0), 1e5)
            choice = {"task": row["task"], "optimizer": row["optimizer"], "size": size, "batch": entry["batch"]}
            known = entry.get("seen", 3e6) / entry["batch"]
            short, same, long = page.evaluate(
                "([c, steps]) => steps.map((n) => LR.formulas.choose.advise({ ...c, steps: n }))",
                [choice, [known / 4, known, 4 * known]],
            )
            assert same["rate"] == pytest.approx(entry["rate"], rel=0.05)
            if "seen" in entry:
                assert short["rate"] > 1.15 * same["rate"] > 1.3 * long["rate"]
                assert short["range"][1] > same["range"][1] > long["range"][1]
            else:
                assert short["rate"] == same["rate"] == long["rate"]
    assert {row["id"] for row in DATA["rows"] for entry in row["start"] if "seen" in entry} == {
        "language-scratch-adamw", "language-scratch-adam", "language-scratch-muon", "pictures-scratch-sgd",
    }  # fmt: skip


@needs_chromium
def test_the_lines_for_pytorch_run_and_apply_the_rate(advice):
    for choice, (told, lines) in zip(CHOICES, advice, strict=True):
        model = Toy()
        names = {"model": model}
        exec(lines["torch"], names)
        optimizers = names.get("optimizers") or [names["optimizer"]]
        schedulers = names.get("schedulers") or [names["scheduler"]]
        assert sorted(map(id, model.parameters())) == sorted(
            id(p) for each in optimizers for group in each.param_groups for p in group["params"]
        )
        share, warmup = names["share"], told["warmup"]
        assert share(warmup - 1) == pytest.approx(1) and share(choice["steps"]) == pytest.approx(0, abs=1e-9)
        shares = [share(t) for t in range(0, choice["steps"] + 10, max(1, choice["steps"] // 200))]
        assert 0 <= min(shares) and max(shares) <= 1
        assert optimizers[0].param_groups[0]["lr"] == pytest.approx(told["rate"] / warmup)
        assert {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "muon": "Muon"}[choice["optimizer"]] == type(
            optimizers[0]
        ).__name__
    model(torch.tensor([1, 2])).sum().backward()
    before = model.hidden[0].weight.clone()
    for each in (*optimizers, *schedulers):
        each.step()
    assert not torch.equal(before, model.hidden[0].weight)


@needs_chromium
def test_muon_gets_the_hidden_matrices_alone(advice):
    told, lines = next(pair for pair in advice if pair[0]["optimizer"] == "muon")
    model = Toy()
    names = {"model": model}
    exec(lines["torch"], names)
    assert {id(p) for p in names["hidden"]} == {id(model.hidden[0].weight), id(model.hidden[2].weight)}
    assert names["optimizers"][1].param_groups[0]["initial_lr"] == told["rest"]


ARGUMENTS = {  # of the calls in the lines, as the libraries name them
    "TrainingArguments": {
        "max_steps", "per_device_train_batch_size", "learning_rate", "lr_scheduler_type", "warmup_steps",
        "weight_decay", "adam_beta2",
    },
    "Trainer": {"optimizers"},
    "get_linear_schedule_with_warmup": {"num_warmup_steps", "num_training_steps"},
    "get_cosine_schedule_with_warmup": {"num_warmup_steps", "num_training_steps"},
    "create_optimizer_v2": {
        "lr", "weight_decay", "momentum", "betas", "adjust_lr_fn", "fallback_lr_scale", "fallback_list",
    },
    "PolyLRScheduler": {"t_initial", "power", "t_in_epochs", "warmup_t", "warmup_prefix"},
    "CosineLRScheduler": {"t_initial", "t_in_epochs", "warmup_t", "warmup_prefix"},
}  # fmt: skip


@needs_chromium
@pytest.mark.parametrize("library", ["transformers", "timm"])
def test_the_lines_for_other_libraries_are_python_with_known_arguments(advice, library):
    for _, lines in advice:
        calls = [node for node in ast.walk(ast.parse(lines[library])) if isinstance(node, ast.Call)]
        assert calls
        for call in calls:
            assert {keyword.arg for keyword in call.keywords} <= ARGUMENTS[call.func.id], lines[library]


@needs_chromium
@pytest.mark.filterwarnings("ignore")
def test_the_lines_for_timm_run_and_apply_the_rate(advice):
    timm_or_skip()
    for choice, (told, lines) in list(zip(CHOICES, advice, strict=True))[::5]:
        names = {"model": Toy()}
        exec(lines["timm"], names)
        optimizer, scheduler = names["optimizer"], names["scheduler"]
        peak = max(group["initial_lr"] for group in optimizer.param_groups)
        assert peak == pytest.approx(told["rate"])
        if choice["optimizer"] == "muon":
            apart = [group for group in optimizer.param_groups if group.get("use_fallback")]
            shapes = {tuple(p.shape) for group in apart for p in group["params"]}
            assert {(5, 4), (2, 4)} <= shapes and not {(6, 4), (4, 6)} & shapes  # embedding and head, not hidden
        scheduler.step_update(told["warmup"])
        assert max(group["lr"] for group in optimizer.param_groups) == pytest.approx(peak, rel=0.02)
        scheduler.step_update(choice["steps"])
        assert max(group["lr"] for group in optimizer.param_groups) == pytest.approx(0, abs=1e-6 * peak)


@needs_chromium
@pytest.mark.filterwarnings("ignore")
def test_the_lines_for_transformers_run_and_apply_the_rate(advice, tmp_path, monkeypatch):
    timm_or_skip()
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate", reason="transformers' TrainingArguments need it")
    monkeypatch.chdir(tmp_path)
    for choice, (told, lines) in list(zip(CHOICES, advice, strict=True))[::11]:
        names = {"model": Toy()}
        exec(lines["torch" if choice["optimizer"] == "sgd" else "timm"], names)
        exec(lines["transformers"], names)
        arguments = names["arguments"]
        assert isinstance(arguments, transformers.TrainingArguments) and arguments.max_steps == choice["steps"]
        if choice["optimizer"] in ("adam", "adamw"):
            assert arguments.learning_rate == told["rate"] and arguments.warmup_steps == told["warmup"]
            assert arguments.lr_scheduler_type == told["row"]["schedule"]["value"]
        else:
            assert names["trainer"].optimizer is names["optimizer"]


def timm_or_skip():
    try:
        rosetta.names("timm")
    except ImportError:
        pytest.skip("pip install -r requirements-rosetta.lock to try timm's and transformers' lines")


@needs_chromium
def test_adamw_fine_tuning_stands_there_without_a_click(page):
    readout = page.locator("#explorer-choose .lr-readout").text_content()
    assert readout.startswith("Start at 2e-5. Search from 1e-5 to 5e-5.")
    assert "lr=2e-5" in page.locator("#explorer-choose code").first.text_content()
    assert page.locator("#explorer-choose .lr-answer").get_by_role("link", name="Devlin").count() >= 1
    assert "2e-5" in page.locator("tr.lr-picked").text_content()
    assert page.evaluate(
        "() => { const ids = [...document.querySelectorAll('[id]')].map((e) => e.id); "
        "return ids.filter((id, k) => ids.indexOf(id) !== k); }"
    ) == []  # fmt: skip


@needs_chromium
@pytest.mark.parametrize("width", (390, 1280))
def test_from_the_front_page_it_is_one_click(browser, url, width):
    page = browser.new_page(viewport={"width": width, "height": 850})
    page.goto(url.replace("choose.html", "index.html"))
    link = page.get_by_role("main").get_by_role("link", name="How to choose").first
    assert link.bounding_box()["y"] < 850
    link.click()
    told = page.get_by_text("Fine-tuning a language model with AdamW: start at 2e-5")
    assert told.bounding_box()["y"] < 850
    page.close()


@needs_chromium
@pytest.mark.parametrize("query", ["finetuning adamw learning rate", "lr for lora", "which lr for fine-tuning"])
def test_from_the_search_it_is_one_click(browser, url, query):
    page = browser.new_page(viewport={"width": 1280, "height": 850})
    page.goto(url.replace("choose.html", "index.html"))
    page.keyboard.press("Control+k")
    field = page.locator("input[name=q]:visible").first
    field.fill(query)
    field.press("Enter")
    page.locator("ul.search > li a").first.click()
    assert page.get_by_text("Fine-tuning a language model with AdamW: start at 2e-5").bounding_box()["y"] < 850
    page.close()


@needs_chromium
def test_keys_choose_and_the_choice_stands_in_the_address(browser, url):
    page = opened(browser, url)
    helper = page.locator("#explorer-choose")
    helper.get_by_label("What do you train?").focus()
    for _ in range(2):
        page.keyboard.press("ArrowDown")
    assert helper.get_by_label("What do you train?").input_value() == "language-scratch"
    told = helper.locator(".lr-answer").text_content()
    assert "524,288 tokens" in helper.text_content() and "known for a run of 300 billion tokens" in told
    assert "raised by k0.3 (usual practice), as if the run were a 16th as long and no shorter" in told
    (entry,) = [e for e in row_of("language-scratch", "adamw")["start"] if e.get("above") == 1e8]
    shown = float(helper.locator(".lr-readout strong").text_content())
    assert shown == pytest.approx(entry["rate"] * 16**0.3, rel=0.05)
    helper.get_by_label("By which optimizer?").select_option("muon")
    assert "for the rest by AdamW" in helper.locator(".lr-readout").text_content()
    page.keyboard.press("Tab")
    helper.get_by_label("batch").focus()
    page.keyboard.press("ArrowRight")
    assert "scaled from there" in helper.locator(".lr-answer").text_content()
    page.wait_for_function("location.hash.includes('batch=20')")
    told, address = helper.locator(".lr-readout").text_content(), page.url
    assert "task=language-scratch" in address and "optimizer=muon" in address
    fresh = browser.new_page()
    fresh.goto(address)
    fresh.wait_for_function("document.querySelector('#explorer-choose[data-live] .lr-readout')?.textContent")
    assert fresh.locator("#explorer-choose .lr-readout").text_content() == told
    fresh.close()
    page.close()


@needs_chromium
def test_each_of_the_three_is_copied_whole(browser, url):
    page = opened(browser, url)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    helper = page.locator("#explorer-choose")
    for name, code in zip(("PyTorch", "transformers", "timm"), helper.locator("code").all(), strict=True):
        helper.get_by_role("button", name=f"Copy the {name} line").click()
        page.wait_for_function(f"navigator.clipboard.readText().then((t) => t === {code.text_content()!r})")
    page.close()


@needs_chromium
@pytest.mark.parametrize("width", (390, 768, 1280, 1920))
def test_nothing_overlaps_and_the_height_was_reserved(browser, url, width):
    page = opened(browser, url, width, has_touch=width == 390)
    assert page.evaluate(SHIFT) < 0.02
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    helper = page.locator("#explorer-choose")
    ((_, reserved, height),) = page.evaluate(HEIGHTS)
    assert 0 <= reserved - height < 100, (reserved, height)
    for task in DATA["tasks"]:
        helper.get_by_label("What do you train?").select_option(task)
        assert page.evaluate(OVERLAPS) == []
    page.close()


@needs_chromium
def test_without_scripts_the_table_and_a_text_are_there(browser, url):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(url)
    assert page.get_by_text("This helper needs scripts").is_visible()
    assert page.locator("table").first.get_by_role("row").count() == 1 + len(DATA["rows"])
    context.close()
