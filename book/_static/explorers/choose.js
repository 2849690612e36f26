/* The helper of the page "How to choose": from task, optimizer, size, batch and budget to a rate and the lines to copy.

Its data stand in the page, made by tools/choose.py; sources and notes are those of the page's table. */
(function () {
  "use strict";
  const data = JSON.parse(document.getElementById("choose-data").textContent);
  const MOST = 32; // times the batch that a rate is known for: no rate is scaled further
  const LONGEST = 16; // times the length that a rate is known for, either way, as far as the rule was measured here
  const COPIED = { linear: "a straight line to zero", cosine: "a cosine to zero" };

  const amount = (x) => new Intl.NumberFormat("en", { notation: "compact", compactDisplay: "long", maximumSignificantDigits: 2 }).format(x);
  const py = (x) => (x !== 0 && x < 1e-3 ? x.toExponential() : String(x));
  const row = (task, optimizer) => data.rows.find((r) => r.task === task && r.optimizer === optimizer);
  /** The number of the entry of a row that counts for so many parameters. */
  const at = (found, size) => found.start.reduce((k, entry, n) => ((entry.above || 0) <= size ? n : k), 0);
  const known = (task, optimizer, size) => {
    const found = row(task, optimizer);
    return found.start[at(found, size)].batch;
  };

  function advise({ task, optimizer, size, batch, steps }) {
    const found = row(task, optimizer);
    const k = at(found, size);
    const entry = found.start[k];
    const ratio = batch / entry.batch;
    const scaled = Math.min(ratio, MOST);
    const { exponent } = (entry.seen && found.length) || { exponent: 0 };
    const length = exponent ? (batch * steps) / entry.seen : 1; // in examples or tokens
    const scale = (data.optimizers[optimizer].batch === "linear" ? scaled : Math.sqrt(scaled)) *
      Math.min(Math.max(length, 1 / LONGEST), LONGEST) ** -exponent;
    const { range, factor, upwards, down = factor } = entry.search || found.search;
    const ends = range || [upwards ? entry.rate : entry.rate / down, entry.rate * factor];
    const { share, most = Infinity } = found.warmup;
    const rest = found.rest === "adamw" ? row(task, "adamw").start.find((_, n) => n === at(row(task, "adamw"), size)).rate : found.rest;
    return {
      row: found, k, entry, ratio, length, task, optimizer, batch, steps,
      rate: LR.round(entry.rate * scale, 2),
      range: ends.map((x) => LR.round(x * scale, 2)),
      warmup: Math.min(Math.max(1, Math.round(Math.min(share * steps, most))), steps - 1),
      rest: rest && LR.round(rest * scale, 2),
      sure: entry.claim ? "measured" : entry.by ? "practice" : "guess",
    };
  }

  // The lines ----------------------------------------------------------------------------------------------------------
  const SHAPES = {
    linear: "max(0, steps - t) / (steps - warmup)",
    cosine: "(1 + math.cos(math.pi * min(1, max(0, t - warmup) / (steps - warmup)))) / 2",
  };
  const betas = (a) => (a.row.beta2 ? `, betas=(0.9, ${a.row.beta2})` : "");
  const adapter = (a) => a.task.endsWith("lora");

  const OPTIMIZERS = {
    sgd: (a, p) => `torch.optim.SGD(${p}, lr=${py(a.rate)}, momentum=0.9, weight_decay=${py(a.row.decay)})`,
    adam: (a, p) => `torch.optim.Adam(${p}, lr=${py(a.rate)}${betas(a)})`,
    adamw: (a, p) => `torch.optim.AdamW(${p}, lr=${py(a.rate)}${betas(a)}, weight_decay=${py(a.row.decay)})`,
  };
  function torchOptimizer(a) {
    if (a.optimizer !== "muon") {
      const trained = adapter(a) ? "adapter = [p for p in model.parameters() if p.requires_grad]\n" : "";
      return `${trained}optimizer = ${OPTIMIZERS[a.optimizer](a, adapter(a) ? "adapter" : "model.parameters()")}\n`;
    }
    return `apart = ("embed", "wte", "wpe", "head", "classifier", "fc.")  # change: how your embeddings and head are named
named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
hidden = [p for name, p in named if p.ndim == 2 and not any(word in name for word in apart)]
rest = [p for _, p in named if not any(p is q for q in hidden)]
optimizers = [
    torch.optim.Muon(hidden, lr=${py(a.rate)}, weight_decay=${py(a.row.decay)}, adjust_lr_fn="${a.entry.scaling}"),
    torch.optim.AdamW(rest, lr=${py(a.rest)}${betas(a)}, weight_decay=${py(a.row.decay)}),
]
`;
  }
  function torchLines(a) {
    const form = a.row.schedule.value;
    const scheduler = "torch.optim.lr_scheduler.LambdaLR";
    const made = a.optimizer === "muon"
      ? `schedulers = [${scheduler}(each, share) for each in optimizers]
# after every update: step() of both optimizers, then of both schedulers`
      : `scheduler = ${scheduler}(optimizer, share)
# after every update: optimizer.step(), then scheduler.step()`;
    const { alpha } = data.tasks[a.task];
    const lora = alpha ? `# the adapter, by peft: get_peft_model(model, LoraConfig(r=16, lora_alpha=${alpha}, target_modules="all-linear"))\n` : "";
    return `${form === "cosine" ? "import math\n\n" : ""}import torch

${lora}${torchOptimizer(a)}
steps, warmup = ${a.steps}, ${a.warmup}

def share(t):
    return min((t + 1) / warmup, ${SHAPES[form]})

${made}`;
  }

  const perDevice = (a) => data.tasks[a.task].unit === "examples"
    ? `\n    per_device_train_batch_size=${a.batch},  # divided by devices and accumulation`
    : `\n    # batch: per_device_train_batch_size × devices × gradient_accumulation_steps × length = ${a.batch} tokens`;
  function transformersLines(a) {
    const common = `"out",\n    max_steps=${a.steps},${perDevice(a)}`;
    if (a.optimizer === "sgd" || a.optimizer === "muon") {
      const from = a.optimizer === "sgd" ? "PyTorch" : "timm";
      const get = `get_${a.row.schedule.value}_schedule_with_warmup`;
      return `from transformers import Trainer, TrainingArguments, ${get}

# optimizer: as in the ${from} lines
scheduler = ${get}(optimizer, num_warmup_steps=${a.warmup}, num_training_steps=${a.steps})
arguments = TrainingArguments(
    ${common}
)
trainer = Trainer(model, arguments, optimizers=(optimizer, scheduler))  # and train_dataset`;
    }
    return `from transformers import TrainingArguments

arguments = TrainingArguments(
    ${common}
    learning_rate=${py(a.rate)},
    lr_scheduler_type="${a.row.schedule.value}",
    warmup_steps=${a.warmup},
    weight_decay=${py(a.row.decay)},${a.row.beta2 ? `\n    adam_beta2=${a.row.beta2},` : ""}
)`;
  }

  const NAMES = { sgd: '"momentum", momentum=0.9', adam: '"adam"', adamw: '"adamw"' };
  function timmLines(a) {
    const name = a.optimizer === "muon"
      ? `"muon", adjust_lr_fn="${a.entry.scaling}",\n    fallback_list=["*embed*", "*head*"], fallback_lr_scale=${LR.round(a.rest / a.rate, 3)}`
      : `${NAMES[a.optimizer]}${a.optimizer === "sgd" ? "" : betas(a)}`;
    const [form, power] = a.row.schedule.value === "linear" ? ["Poly", ", power=1"] : ["Cosine", ""];
    return `from timm.optim import create_optimizer_v2
from timm.scheduler import ${form}LRScheduler

optimizer = create_optimizer_v2(
    model, ${name},
    lr=${py(a.rate)}, weight_decay=${py(a.row.decay)},
)
scheduler = ${form}LRScheduler(
    optimizer, t_initial=${a.steps - a.warmup}${power}, t_in_epochs=False,
    warmup_t=${a.warmup}, warmup_prefix=True,
)
# after update t, counted from 1: scheduler.step_update(t)`;
  }

  LR.formulas.choose = {
    data,
    advise: (choice) => advise(choice),
    lines: (choice) => {
      const a = advise(choice);
      return { torch: torchLines(a), transformers: transformersLines(a), timm: timmLines(a) };
    },
  };

  // The page -----------------------------------------------------------------------------------------------------------
  /** What the table says of where a fact is from. A source that counts for several sizes stands at the last of them. */
  function from(found, what, k) {
    for (let n = k; ; n++) {
      const cell = document.getElementById(`from-${found.id}-${what}${k === undefined ? "" : `-${n}`}`);
      if (!cell && k !== undefined && n < found.start.length) continue;
      const copy = cell?.cloneNode(true);
      copy?.querySelectorAll("[id]").forEach((part) => part.removeAttribute("id"));
      return copy ? [...copy.childNodes] : [];
    }
  }
  /** How the length of the run has changed the rate, and how sure that is. */
  function lengthened({ row: found, entry, length, batch, steps, task }) {
    if (length === 1) return [];
    const { exponent, sure } = found.length;
    const seen = (x) => `${amount(x)} ${data.tasks[task].unit}`;
    const far = length > LONGEST || length < 1 / LONGEST;
    return [
      ` It is known for a run of ${seen(entry.seen)}. This one sees ${seen(batch * steps)}, so the rate is ` +
      `${length > 1 ? "lowered" : "raised"} by k`, LR.html("sup", {}, String(exponent)), ` (${sure}), ` +
      (far ? `as if the run were ${length > 1 ? `${LONGEST} times` : `a ${LONGEST}th`} as long and no ${length > 1 ? "longer" : "shorter"}.` : `k = ${LR.show(length, 2)}.`),
    ];
  }
  const SURE = {
    measured: "Measured here, on a network as small as this. Search the range.",
    practice: "Usual practice: this rate worked for others. It is not measured here at this size; search the range.",
    guess: "A guess. Search the range, and expect to leave it.",
  };

  LR.explorer("choose", (root) => {
    const pick = LR.html("div", { class: "lr-controls" });
    const answer = LR.html("dl", { class: "lr-answer" });
    root.append(pick);
    const options = (entries) => Object.entries(entries).map(([key, value]) => [key, value.text || value]);
    const again = () => reset() || render();
    const task = LR.select(pick, { key: "task", label: "What do you train?", value: "language", choices: options(data.tasks) }, again);
    const optimizer = LR.select(pick, { key: "optimizer", label: "By which optimizer?", value: "adamw", choices: options(data.optimizers) }, again);
    const size = LR.select(pick, { key: "size", label: "How many parameters?", value: "1e8", choices: options(data.sizes) }, again);
    const unit = () => data.tasks[task.value].unit;
    const base = () => Math.round(Math.log2(known(task.value, optimizer.value, Number(size.value))));
    const batch = LR.slider(pick, {
      key: "batch", label: "batch", min: 0, max: 23, step: 1, value: base(), show: (x) => `${(2 ** x).toLocaleString("en")} ${unit()}`,
    }, () => render());
    const steps = LR.slider(pick, {
      key: "steps", label: "budget", min: 100, max: 1e6, log: true, digits: 2, value: data.tasks[task.value].steps,
      show: (x) => `${Math.round(x).toLocaleString("en")} updates`,
    }, () => render());
    const readout = LR.readout(root);
    root.append(answer);
    const lines = { torch: LR.code(root, "PyTorch"), transformers: LR.code(root, "transformers"), timm: LR.code(root, "timm") };
    let before = [task.value, base()];

    /** Batch and budget go with the task, as long as they were not set by hand. */
    function reset() {
      const [oldTask, oldBase] = before;
      if (task.value !== oldTask) steps.value = data.tasks[task.value].steps;
      if (task.value !== oldTask || batch.value === oldBase) batch.value = base();
      before = [task.value, base()];
    }
    function render() {
      batch.value = batch.value; // shows the unit
      const choice = {
        task: task.value, optimizer: optimizer.value, size: Number(size.value), batch: 2 ** batch.value, steps: Math.round(steps.value),
      };
      const a = advise(choice);
      const [low, high] = a.range.map(py);
      const muon = a.optimizer === "muon" ? ` for the hidden matrices, scaling “${a.entry.scaling}”; ${py(a.rest)} for the rest by AdamW` : "";
      readout.replaceChildren(
        "Start at ", LR.html("strong", {}, py(a.rate)), `${muon}. Search from ${low} to ${high}. Warm up for ` +
        `${a.warmup.toLocaleString("en")} updates, then ${COPIED[a.row.schedule.value]} at update ${a.steps.toLocaleString("en")}.`);
      const grown = a.ratio === 1 ? [] : [
        ` The rate is known for a batch of ${a.entry.batch.toLocaleString("en")} and scaled from there by ` +
        `${data.optimizers[a.optimizer].batch === "linear" ? "k" : "√k"}` +
        (a.ratio > MOST ? `, as if the batch were ${MOST} times as large and no more: above the critical batch it hardly rises.` : "."),
      ];
      const sure = a.sure === "measured" && a.ratio !== 1
        ? `Measured here at a batch of ${a.entry.batch.toLocaleString("en")}, on a network as small as this, and scaled. Search the range.` : SURE[a.sure];
      const source = from(a.row, "start", a.k);
      const changes = [...grown, ...lengthened(a)];
      const parts = [
        ["How sure", [sure, " ", ...source, ...(source.length && changes.length ? ["."] : []), ...changes]],
        ["Range", [`${low} to ${high} `, ...from(a.row, a.entry.search ? `search-${a.k}` : "search")]],
        ["Schedule", [`${a.row.schedule.value} to zero `, ...from(a.row, "schedule")]],
        ["Warm-up", [`${a.warmup.toLocaleString("en")} of ${a.steps.toLocaleString("en")} updates `, ...from(a.row, "warmup")]],
        ["Batch × k", from(a.row, "batch-all")], ["Width × k", from(a.row, "width-all")], ["Length × k", from(a.row, "length-all")],
        ["Mind", from(a.row, "note")],
        ["Chapter", [LR.html("a", { href: `${a.row.chapter}.html` }, data.chapters[a.row.chapter])]],
      ];
      answer.replaceChildren(...parts.filter(([, says]) => says.length).flatMap(([name, says]) =>
        [LR.html("dt", {}, name), LR.html("dd", {}, ...says)]));
      const made = LR.formulas.choose.lines(choice);
      for (const [name, code] of Object.entries(lines)) code.text = made[name];
      document.querySelectorAll("tr.lr-picked").forEach((line) => line.classList.remove("lr-picked"));
      document.getElementById(`row-${a.row.id}`).closest("tr").classList.add("lr-picked");
    }
    return render;
  });
})();
