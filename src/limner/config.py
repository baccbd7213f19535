"""Every knob on one page: frozen pydantic sections; a function takes its section, never the whole RunConfig."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from limner.errors import UsageError

Kind = Literal["separable", "grouped", "dense"]
Activation = Literal["relu", "relu6", "leaky"]
Objective = Literal["upscale", "direct", "flow", "pairs", "student", "match", "code", "recall"]


class Section(BaseModel):
    """Base of all sections: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(Section):
    """Which pictures a run learns from."""

    licenses: tuple[str, ...] | None = Field(
        default=None, description="keep records whose licence contains one of these"
    )
    exclude_licenses: tuple[str, ...] = Field(
        default=(), description="drop records whose licence contains one of these"
    )
    styles: tuple[str, ...] | None = Field(default=None, description="keep only these styles")
    captions: str | None = Field(default=None, description="table of captions that does not lie beside the pictures")
    looks: bool = Field(
        default=False, description="painters: where a caption fits several styles, the mean of the noise says which"
    )
    vary: bool = Field(
        default=False, description="painters: the noise also says which way a picture faces, and its shade (`direct`)"
    )
    upright: tuple[str, ...] = Field(
        default=(), description="with vary: beginnings of categories that are never mirrored, such as flags"
    )
    recolour: int = Field(
        default=0, ge=0, le=10, description="versions in other colours of pictures with one measured colour"
    )
    group_column: str = Field(default="group", description="records that share this value stay in one split")
    validation_fraction: float = Field(
        default=0.02, ge=0, lt=1, description="share of groups held out when no split is given"
    )
    test_fraction: float = Field(default=0.0, ge=0, lt=1)
    split_seed: int = 0


class DegradeConfig(Section):
    """How a low-resolution picture is made from a crop."""

    kind: Literal["bicubic", "decimate", "realworld"] = "bicubic"
    second_round: bool = Field(default=True, description="realworld only: apply the second degradation round")


class UpscalerConfig(Section):
    """Shape of an upscaler. Widths in multiples of 16 run fastest."""

    scale: Literal[2, 3, 4] = 4
    channels: Literal[3, 4] = Field(default=3, description="3: RGB; 4: RGBA, learned with premultiplied alpha")
    kind: Kind = "separable"
    width: int = Field(default=32, ge=1, le=512)
    depth: int = Field(default=8, ge=1, le=128, description="number of blocks between head and tail")
    kernel: Literal[3, 5, 7] = 3
    expansion: int = Field(
        default=1, ge=1, le=8, description="channels inside a separable block, as a multiple of its width"
    )
    group_width: int = Field(default=16, ge=1, description="channels per group of the grouped kind")
    activation: Activation = Field(default="relu", description="leaky makes every grid signed, and is not for fused")
    unshuffle: Literal[1, 2, 4] = Field(default=1, description="the trunk works at 1/unshuffle of the input resolution")
    branches: bool = Field(default=True, description="training-time branches that fold into one convolution")
    levels: int = Field(
        default=2, ge=1, le=4, description="pictures the trunk answers for; all but the last are auxiliary"
    )
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _possible(self) -> UpscalerConfig:
        if self.levels > self.depth:
            raise ValueError(f"levels={self.levels} needs at least as many blocks, depth is {self.depth}")
        if self.kind == "grouped" and self.width % self.group_width:
            raise ValueError(f"width={self.width} is not a multiple of group_width={self.group_width}")
        if self.kind != "separable" and self.expansion > 1:
            raise ValueError(f"expansion={self.expansion} is for separable blocks, and kind is {self.kind}")
        return self


class PainterConfig(Section):
    """Shape of a painter: a U on the pixel-unshuffled picture; every level has half the side of the one before."""

    size: int = Field(default=64, ge=16, description="side of the picture, pixels")
    cell: Literal[2, 4, 8] = Field(default=4, description="the finest level of the trunk works at 1/cell of the size")
    widths: tuple[int, ...] = Field(default=(64, 128, 256), description="channels of each level, fine to coarse")
    down: tuple[int, ...] = Field(default=(1, 1), description="blocks on the way down, fine to coarse")
    middle: int = Field(default=2, ge=0, description="blocks at the coarsest level")
    up: tuple[int, ...] = Field(default=(2, 2), description="blocks on the way up, fine to coarse")
    kind: Literal["separable", "dense"] = Field(
        default="separable", description="blocks: pointwise, depthwise, pointwise; or two whole convolutions"
    )
    expansion: int = Field(default=2, ge=1, le=8, description="channels inside a block, as a multiple of its width")
    kernel: Literal[3, 5, 7] = 3
    condition: int = Field(default=256, ge=8, description="length of the vector that FiLM reads")
    memory: int = Field(default=256, ge=0, description="hidden units between text and the coarsest level; 0: none")
    thoughts: int = Field(default=0, ge=0, description="further hidden layers between text and the coarsest level")
    code: int = Field(
        default=0, ge=0, description="channels of the map that text puts at the coarsest level; 0: its width"
    )
    attention: tuple[int, ...] = Field(default=(1,), description="levels whose way up begins by reading the tokens")
    heads: int = Field(default=4, ge=1)
    noise: int = Field(default=64, ge=1, description="channels of the noise at the finest level")
    mood: bool = Field(
        default=False, description="the mean of the noise also reaches FiLM and the coarsest level, beside the text"
    )
    pyramid: bool = Field(
        default=False, description="a picture is the coarser one, enlarged, plus detail; or every head paints it whole"
    )
    head_kernel: Literal[1, 3] = Field(default=1, description="kernel of the heads that add detail in a pyramid")
    timed: bool = Field(default=False, description="takes the time of a flow as an input (teachers)")

    @model_validator(mode="after")
    def _possible(self) -> PainterConfig:
        levels = len(self.widths)
        if len(self.down) != levels - 1 or len(self.up) != levels - 1:
            raise ValueError(f"{levels} widths need {levels - 1} entries each in down and up")
        coarsest = self.cell * 2 ** (levels - 1)
        if self.size % coarsest:
            raise ValueError(f"size={self.size} is not a multiple of {coarsest}, the coarsest cell")
        if self.mood and not self.memory:
            raise ValueError("mood=true needs memory > 0, which it is added to")
        if (self.code or self.thoughts) and not self.memory:
            raise ValueError("code and thoughts need memory > 0, between the text and the map")
        if any(not 0 <= level < levels for level in self.attention):
            raise ValueError(f"attention={self.attention} names a level that is not among 0 to {levels - 1}")
        if any(self.widths[level] % self.heads for level in self.attention):
            raise ValueError(f"heads={self.heads} does not divide the width of every level with attention")
        return self

    @property
    def grids(self) -> tuple[int, ...]:
        """Side of every level of the trunk, fine to coarse."""
        return tuple(self.size // self.cell // 2**level for level in range(len(self.widths)))

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the pictures the network gives, coarse to fine, doubled up to `size`.

        The first is that of the second level or, where that is larger, of the first level from size / 8 down.
        """
        first = next((grid for grid in self.grids[1:] if grid <= self.size // 8), self.grids[:2][-1])
        return tuple(first * 2**k for k in range((self.size // first).bit_length()))


class TextConfig(Section):
    """The text bundle whose vectors a painter reads."""

    bundle: str = Field(default="text-minilm", description="name in the zoo, or folder")
    tokens: int = Field(default=16, ge=1, description="length that states are padded or cut to")
    width: int = Field(default=384, ge=1, description="length of a token's vector")
    cache: str | None = Field(default=None, description="file that keeps the vectors; default: beside the run folder")
    mix: float = Field(
        default=0.0, ge=0, lt=0.5, description="objective direct: learns from vectors moved up to so far to another's"
    )


class LossConfig(Section):
    """L = sum_k alpha_k * L_k over the levels, plus the adversarial term when it is on."""

    pixel: Literal["l1", "charbonnier", "l2", "log_l2"] = "charbonnier"
    least: float = Field(default=1e-4, gt=0, description="log_l2: mean squared error that is small enough")
    alphas: tuple[float, ...] = Field(default=(0.1, 1.0), description="weight of each level, coarse to fine")
    fourier: float = Field(default=0.0, ge=0, description="weight of the L1 distance of the Fourier transforms")
    l2_share: float = Field(default=0.15, ge=0, le=1, description="last share of the run that is trained on L2 alone")
    distill: float = Field(default=0.0, ge=0, le=1, description="weight of the teacher's picture against the true one")
    best_of: int = Field(default=1, ge=1, description="painters: draws of noise of which the best is learned from")


class AdversarialConfig(Section):
    """The relativistic adversarial term (off by default)."""

    weight: float = Field(default=0.0, ge=0)
    gamma: float = Field(default=1.0, ge=0, description="weight of both zero-centred penalties, R1 and R2")
    penalty_every: int = Field(
        default=4, ge=1, description="lazy regularization: penalties every n-th step, scaled by n"
    )
    width: int = Field(default=32, ge=4)
    cell: Literal[2, 4] = Field(default=4, description="painters: the critic looks at pixels unshuffled by this")
    places: bool = Field(default=False, description="painters: the critic also judges every place by itself")
    init: str | None = Field(default=None, description="run folder whose critic this run begins with")
    lr: float = Field(default=2e-4, gt=0)
    lr_final: float | None = Field(
        default=None, ge=0, description="its rate at the end, on the cosine of train.lr; none: it stays as it is"
    )
    start_share: float = Field(default=0.5, ge=0, lt=1, description="share of the run before the adversary joins")
    head_start: float = Field(
        default=0.0, ge=0, lt=1, description="share of the run in which it then only learns, and is not yet listened to"
    )
    mismatch: float = Field(
        default=1.0, ge=0, description="painters: weight of telling a picture's own caption from another's"
    )
    versions: float = Field(
        default=0.0, ge=0, description="painters: the same, from one's of the same thing in another style or colour"
    )
    augment: bool = Field(default=True, description="painters: the critic sees pictures shifted and with holes")
    balance: bool = Field(
        default=False, description="weight is the share of the pixel loss's gradient at the picture, in every step"
    )


class FlowConfig(Section):
    """Flow matching and its sampler."""

    t_mean: float = Field(default=0.4, description="t = sigmoid(normal(t_mean, t_std)); 1 is noise alone")
    t_std: float = Field(default=1.0, gt=0)
    t_least: float = Field(default=0.1, gt=0, lt=1, description="the velocity's weight 1 / t^2 stops growing below it")
    text_dropout: float = Field(default=0.1, ge=0, lt=1, description="share of pictures that are learned without text")
    steps: int = Field(default=12, ge=1, description="steps of the sampler")
    guidance: float = Field(default=2.5, ge=0, description="1 is none; 0 ignores the text")


class MatchConfig(Section):
    """The text-picture encoder inside a painter's loss (never one that evaluates)."""

    run: str | None = Field(default=None, description="run folder of the encoder; none: neither term")
    weight: float = Field(default=0.0, ge=0, description="weight of the contrastive loss of painted pictures")
    features: float = Field(default=0.0, ge=0, description="weight of the distance to the true picture in its features")


class CodeConfig(Section):
    """What pictures are for the coarsest level of a painter (objective `code`), and who predicts that (`recall`)."""

    run: str | None = Field(default=None, description="recall: run folder of the coder whose codes are predicted")
    width: int = Field(default=64, ge=4, description="channels of the encoder at its finest level")
    decoder: bool = Field(
        default=True, description="the trunk learns too; false: only the encoder, for a trunk that paints already"
    )
    jitter: float = Field(default=0.2, ge=0, description="noise on the codes that the decoder learns from")


class PairsConfig(Section):
    """What a teacher paints for its student."""

    teacher: str | None = Field(default=None, description="run folder of the flow that paints the pairs")
    count: int = Field(default=40_000, ge=1)
    shard: int = Field(default=1_024, ge=1, description="pairs per file")
    recombined: float = Field(default=0.2, ge=0, le=1, description="share of captions with another picture's style")
    folder: str | None = Field(default=None, description="student: run folder that holds the pairs")


class TrainConfig(Section):
    """The loop. Progress is counted in images (crops) seen."""

    images: int = Field(default=800_000, ge=1, description="crops to learn from, in all")
    batch: int = Field(default=16, ge=1, description="global batch, over all processes")
    crop: int = Field(default=48, ge=8, description="side of the low-resolution crop, pixels")
    multiscale: bool = Field(default=False, description="draw the crop from a picture shrunk by 1, 0.75 or 0.5")
    lr: float = Field(default=2e-3, gt=0)
    lr_final: float = Field(default=1e-6, ge=0)
    warmup: int = Field(default=3200, ge=0, description="images of linear warm-up")
    optimizer: Literal["adamw", "muon"] = "adamw"
    beta2: float = Field(default=0.99, gt=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    clip: float = Field(default=1.0, ge=0, description="gradient norm limit; 0 turns it off")
    ema: float = Field(
        default=0.999, ge=0, le=1, description="per step; warmed up as (1+t)/(10+t); 1: the mean of all steps"
    )
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    channels_last: bool = True
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = Field(default=1, ge=1)
    threads: int = Field(default=0, ge=0, description="CPU threads; 0 leaves torch's default")
    checkpoint_every: int = Field(default=40_000, ge=1, description="images between checkpoints")
    sample_every: int = Field(default=200_000, ge=1, description="images between sample sheets and validation")
    log_every: int = Field(default=3_200, ge=1, description="images between lines of stats.jsonl")
    init: str | None = Field(default=None, description="run folder or bundle whose weights start this run")
    teacher: str | None = Field(default=None, description="run folder of a larger network to distill from")


class QuantizeConfig(Section):
    """Integer arithmetic. 7-bit weights never overflow the 16-bit sums of CPUs without VNNI."""

    weight_bits: int = Field(default=7, ge=2, le=8)
    activation_bits: int = Field(default=8, ge=2, le=8)
    packed: bool = Field(
        default=False, description="weights of 4 bits or fewer as ONNX INT4: the smaller file, but half the speed"
    )
    per_channel: bool = True
    calibration_crops: int = Field(default=64, ge=1)
    calibration: Literal["minmax", "mse"] = "mse"
    learn_grids: bool = Field(default=True, description="quantization-aware training also learns the input grids")
    symmetric: bool = Field(
        default=True, description="inputs below 0 lie on a signed grid around 0; false: on one with its own zero point"
    )
    float_layers: tuple[str, ...] = Field(
        default=(), description="names of layers that stay float, such as tail or up.0.*; * stands for anything"
    )
    images: int = Field(default=0, ge=0, description="pictures of quantization-aware training; 0 = post-training only")
    lr: float = Field(default=2e-4, gt=0)
    distill: float = Field(
        default=0.0, ge=0, le=1, description="in that training: weight of the float network's picture against the true"
    )
    adversarial: float | None = Field(
        default=None, ge=0, description="in that training: weight of the adversary; default: that of the run"
    )

    @model_validator(mode="after")
    def _possible(self) -> QuantizeConfig:
        if self.packed and self.weight_bits > 4:
            raise ValueError(
                f"packed=true needs weight_bits of 4 or fewer, not {self.weight_bits}: no engine packs more"
            )
        return self


class PruneConfig(Section):
    """What `limner prune` takes away when it is told nothing else, and each trial of a search after its training."""

    ratio: float = Field(default=0.0, ge=0, lt=1, description="share of the multiply-accumulates; 0: nothing")


class PackConfig(Section):
    """The gate a bundle must pass, and what it does beside its network."""

    tolerance: float = Field(default=2e-4, gt=0, description="largest |float graph - torch|, pictures in 0..1")
    int8_tolerance: float = Field(default=0.5, gt=0, description="largest mean |int8 engine - torch|, last bits")
    max_gap: float = Field(default=4.0, gt=0, description="painters: largest mean |int8 - float|, last bits")
    max_drop: float = Field(default=0.08, gt=0, description="dB of Y-PSNR that int8 may cost against float")
    alpha_gain: float = Field(
        default=1.0, ge=1, le=255, description="painters: contrast that alpha is given around one half; 1: none"
    )
    variety: float = Field(
        default=0.0, ge=0, le=1, description="painters: length by which a seed moves the pooled vector of its prompt"
    )
    float_graph: bool = Field(
        default=True, description="painters: the float graph goes into the bundle too; it is four times the size"
    )
    min_gain: float = Field(
        default=0.0, description="dB over bicubic that the int8 graph must reach on the evaluation set"
    )


class RunConfig(Section):
    """One run, whole: stored in the run folder and in the bundle. `model` is for upscalers, `painter` for painters."""

    name: str
    task: Literal["upscale", "generate"] = "upscale"
    objective: Objective = "upscale"
    data: DataConfig = DataConfig()
    degrade: DegradeConfig = DegradeConfig()
    model: UpscalerConfig = UpscalerConfig()
    painter: PainterConfig = PainterConfig()
    text: TextConfig = TextConfig()
    flow: FlowConfig = FlowConfig()
    match: MatchConfig = MatchConfig()
    code: CodeConfig = CodeConfig()
    pairs: PairsConfig = PairsConfig()
    loss: LossConfig = LossConfig()
    adversarial: AdversarialConfig = AdversarialConfig()
    train: TrainConfig = TrainConfig()
    prune: PruneConfig = PruneConfig()
    quantize: QuantizeConfig = QuantizeConfig()
    pack: PackConfig = PackConfig()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if (self.task == "upscale") != (self.objective == "upscale"):
            raise ValueError(f"objective={self.objective!r} is not one of task={self.task!r}")
        return self._consistent_upscaler() if self.task == "upscale" else self._consistent_painter()

    def _consistent_upscaler(self) -> RunConfig:
        if len(self.loss.alphas) != self.model.levels:
            raise ValueError(f"loss.alphas has {len(self.loss.alphas)} weights for model.levels={self.model.levels}")
        if self.train.crop % self.model.unshuffle:
            raise ValueError(
                f"train.crop={self.train.crop} is not a multiple of model.unshuffle={self.model.unshuffle}"
            )
        return self

    def _consistent_painter(self) -> RunConfig:
        sides, whole = self.painter.sides, 4 * self.painter.cell**2
        if len(self.loss.alphas) != len(sides):
            raise ValueError(f"loss.alphas has {len(self.loss.alphas)} weights for pictures of {sides} pixels")
        if self.objective in ("flow", "pairs") and not (self.painter.timed and self.painter.noise == whole):
            raise ValueError(f"a flow needs painter.timed=true and painter.noise={whole}, a whole noisy picture")
        if self.objective in ("code", "recall") and not self.painter.code:
            raise ValueError("objective=" + repr(self.objective) + " needs painter.code > 0, the channels of the code")
        if self.objective in ("direct", "student", "code", "recall") and self.painter.timed:
            raise ValueError("painter.timed=true is for flows; this painter takes one step")
        return self


def explain(error: ValidationError, source: str) -> UsageError:
    """One sentence for the first fault of a validation error, with the path of the key."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"]) or "configuration"
    if first["type"] == "extra_forbidden":
        return UsageError(f"{source}: unknown key {path!r}: remove it or correct its name.")
    return UsageError(f"{source}: {path}: {first['msg'].removeprefix('Value error, ')} (got {first['input']!r:.80}).")


def parse(raw: dict[str, Any], source: str) -> RunConfig:
    """A RunConfig from plain data. Raises UsageError that names `source` and the path of the key at fault."""
    try:
        return RunConfig.model_validate(raw)
    except ValidationError as error:
        raise explain(error, source) from None


def override(config: RunConfig, pairs: list[str]) -> RunConfig:
    """Apply `section.key=value` strings (values in TOML syntax, bare words as strings)."""
    raw = config.model_dump(mode="json")
    for pair in pairs:
        path, separator, text = pair.partition("=")
        if not separator:
            raise UsageError(f"--set {pair!r}: write it as section.key=value.")
        _assign(raw, path.strip().split("."), _value(text.strip()), pair)
    return parse(raw, "--set")


def merge(config: RunConfig, table: dict[str, Any], source: str) -> RunConfig:
    """Overlay nested `table` (a parsed TOML file) on `config`."""
    return parse(_overlay(config.model_dump(mode="json"), table), source)


def _overlay(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        nested = isinstance(value, dict) and isinstance(base.get(key), dict)
        merged[key] = _overlay(base[key], value) if nested else value
    return merged


def _assign(raw: dict[str, Any], path: list[str], value: Any, pair: str) -> None:
    node = raw
    for key in path[:-1]:
        if not isinstance(node.get(key), dict):
            raise UsageError(f"--set {pair!r}: there is no section {key!r}.")
        node = node[key]
    node[path[-1]] = value


def _value(text: str) -> Any:
    import tomllib

    if text in ("none", "null"):
        return None
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text
