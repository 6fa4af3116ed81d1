"""What can be launched: parts of the line for one product, the whole line, a promotion, the signals."""

import dagster as dg

from assets.desk import techniques
from assets.serving import CANARY, CHALLENGER, CHAMPION

data = dg.define_asset_job("data", dg.AssetSelection.groups("data"), description="Raw rows to splits and preferences.")
train = dg.define_asset_job("train", dg.AssetSelection.groups("model"), description="Base to selected candidate.")
search = dg.define_asset_job(
    "search", dg.AssetSelection.groups("search"), description="Hyperparameters of the product's recipe, by trial."
)
EVALUATION = dg.AssetSelection.groups("eval") - dg.AssetSelection.assets(techniques)
UP_TO_CANDIDATE = (
    dg.AssetSelection.groups("data", "model")
    | EVALUATION
    | dg.AssetSelection.assets(["release", "verdict"], ["release", "candidate"])
)
evaluate = dg.define_asset_job(
    "evaluate",
    EVALUATION | dg.AssetSelection.assets(["release", "verdict"]),
    description="Judge a candidate: name it in the config of each step (candidate: sha256:...).",
)
desk = dg.define_asset_job(
    "desk",
    dg.AssetSelection.assets(techniques),
    description="Prompt, worked examples, retrieval or fine-tuning: name the candidate in the config of the step.",
)
line = dg.define_asset_job(
    "line",
    UP_TO_CANDIDATE,
    description="Raw rows to a registered candidate that waits for a signature. Work that was done is skipped.",
)
signals = dg.define_asset_job(
    "signals",
    dg.AssetSelection.groups("signals"),
    description="Drift, and what to do about it.",
)
promote = dg.define_asset_job(
    "promote",
    dg.AssetSelection.assets(CHALLENGER, CANARY, CHAMPION),
    description="Promote the release named in the config: verify all again, challenger, canary, record, alias.",
)
all_jobs = [data, train, search, evaluate, desk, line, promote, signals]
