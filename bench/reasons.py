"""Why a bar is missed, as profiling found it, and what was tried: by script, work, model and ratio."""

CAPTUM, FLOOR = "captum / attrfn", "attrfn / floor"
REASONS: dict[tuple[str, str, str, str], str] = {
    ("integrated", "IG, 50 steps, batch 2", "ResNet-18", CAPTUM): (
        "nine tenths of the time are convolutions, forward and back, which are the same calls in all three, and "
        "the loop by hand is no further ahead. Steps in a pass were tried: 2, 4, 10 and 20 take 1387, 1173, 1045 "
        "and 1088 ms (20 steps); at 13, the default here, a larger chunk gains nothing."
    ),
    ("layer_integrated", "layer IG, 50 steps, layer4", "ResNet-18", FLOOR): (
        "a model cannot be entered in its middle: what precedes the layer runs on the baseline, and once more on "
        "x in the pass of the steps. The loop by hand, of a model cut in two, runs both in one pass of twice the "
        "batch, in which the convolutions' weights are read once (20 convolutions in place of 40)."
    ),
    ("layer_integrated", "layer IG, 50 steps, layer1", "ResNet-18", FLOOR): (
        "on one thread it is 1.09: torch's batching rule for the backward pass of a convolution copies a stand-in "
        "for each input (3 %), and the baseline has a pass of its own. On two threads the loop by hand picks the "
        "fold that is fastest there; ours holds 4 MiB."
    ),
    ("layer_integrated", "layer IG, 50 steps, layer1", "ResNet-18", CAPTUM): (
        "88 % of the time are convolutions behind the layer, once a step in all three; the loop by hand is the bound."
    ),
    ("conductance", "layer conductance, 4 points against Captum's 50", "digits CNN, GELU, accuracy 0.96", CAPTUM): (
        "on one thread it is 4.7. The whole call takes 10 ms, of which two passes that find and read the layer "
        "and the Python of forward mode are a third, which a second thread does not shorten; Captum's one large "
        "batch it does."
    ),
    ("shap", "layer gradient SHAP, layer3, 16 draws of 16 references", "ResNet-18", CAPTUM): (
        "Captum runs three whole passes a draw, ours one whole pass and one up to the layer, and what is up to "
        "layer3 is four fifths of a pass: a loop by hand is at 1.36. Sharing the activations of a reference among "
        "the examples that drew it would save a third of the shorter passes, but is wrong where a model holds "
        "anything of an example."
    ),
    ("targets", "saliency of 100 targets", "ResNet-18", CAPTUM): (
        "77 % of the time is the backward pass of convolutions. Targets in a pass were tried: 16, 25, 34 and 50 "
        "give 2.60, 2.39, 2.32 and 2.16; one forward pass for all chunks and torch's own batched gradients 2.0."
    ),
    ("plain", "input x gradient, batch 16", "ResNet-18", CAPTUM): (
        "the rounds differ by more; the loop by hand is no further ahead."
    ),
    ("plain", "guided backprop, batch 16", "ResNet-18", FLOOR): (
        "the middle half of the rounds is on both sides of the bar; 1.00 in a run an hour before."
    ),
    **dict.fromkeys(
        [("plain", "saliency, batch 16", "ResNet-18", ratio) for ratio in (CAPTUM, FLOOR)],
        "the rounds differ by more: in nine by themselves, in turn, it is at 0.99 of Captum's. Input x gradient, the "
        "same work and a product, is within both bars in this run.",
    ),
    ("deep_lift", "DeepLIFT SHAP, batch 2, 16 references", "ResNet-18", CAPTUM): (
        "64 % of the time are convolutions; the slopes of ReLUs are 14 %. Keeping where the references' maxima "
        "are saved 3 %; writing slopes in place nothing."
    ),
    ("overhead", "saliency, batch 1", "MLP", FLOOR): (
        "on one thread it is 1.45. Beside the pass: what modules hold is looked at, x is copied (a model may write "
        "over it), the output and the attribution are looked at for numbers that are not finite: 0.1 ms, in some 200 "
        "calls of Python. Was 1.83 before each module was looked at once and a class index was picked first."
    ),
    **dict.fromkeys(
        [("overhead", f"{of}, batch 1", "MLP", CAPTUM) for of in ("saliency", "input x gradient")],
        "runs differ by 5 %: by themselves, in 60 rounds, both are at 1.00. What is asked beside the pass is told at "
        "the other bar.",
    ),
    **dict.fromkeys(
        [("overhead", f"{of}, batch 1", "MLP", CAPTUM) for of in ("guided backprop", "deconvolution")],
        "the middle half of the rounds is on both sides of the bar. Every operation passes a function mode. Was 0.74 "
        "and 0.85 when a ReLU was an autograd function of ours; it is torch's now, with a hook at its node.",
    ),
    ("overhead", "DeepLIFT, batch 1", "MLP", CAPTUM): (
        "every operation passes a function mode in two passes, and each ReLU is an autograd function of ours whose "
        "slope takes seven small operations. Was 0.41 before a model under rules was no pass within a pass, then 0.69."
    ),
    **dict.fromkeys(
        [("overhead", f"{of}, batch 1", "MLP", CAPTUM) for of in ("layer gradient x activation", "neuron gradient")],
        "a tap at the layer, what holds it, and a copy of what is there. Was 0.70 when a tapped pass had a function "
        "mode, and a neuron's 0.25 before its model was no pass around a pass.",
    ),
    ("overhead", "gradient SHAP, 5 samples, batch 1", "MLP", CAPTUM): (
        "three things of a vmap each cost as much as the model: its batch, the draws, and what its passes hold."
    ),
    **dict.fromkeys(
        [
            ("cost", "DeepLIFT, batch 4, in gradients", "ViT", FLOOR),
            ("cost", "DeepLIFT, batch 64, in gradients", "LSTMCell, 60 steps", FLOOR),
        ],
        "runs differ by a fifth: both were within the bar in one a quarter of an hour before, of the same code, and at "
        "2.5 on a quieter machine.",
    ),
    ("cost", "saliency: a method of an object with 100,000 records", "MLP", FLOOR): (
        "records are compared at their ends, and their number, before and after each pass. Was 1.34; 1.22 in a run "
        "of the same code before this one."
    ),
    ("cost", "infidelity, 20 draws, batch 2", "ResNet-18", CAPTUM): (
        "a pass at x by itself beside that of the draws, as Captum's. Was 0.87 before batch norm of all rows was "
        "torch's own kernel, and the 20 draws one chunk."
    ),
    ("cost", "layer conductance, difference, 20 points", "ViT", CAPTUM): (
        "as many products as Captum's since gradients are taken below the map (0.62 before), and the map itself: runs "
        "differ, 0.79 to 0.99."
    ),
    ("ablation", "input ablation, 49 patches, batch 2", "ResNet-18", "captum, its best / attrfn"): (
        "by itself, in five rounds, the medians are at 0.98, the best at 1.07; was 0.86 before batch norm of all rows "
        "was torch's own kernel. The loop by hand is ahead of both: 1.14."
    ),
    (
        "shapley",
        "Shapley values, 2 P evaluations",
        "digits CNN, GELU, max pooling",
        "median error, attrfn / the best of shap's and shapiq's",
    ): (
        "both are one order and its reverse, drawn by each library's own generator, the same for all images: with 3 "
        "draws the ratio was 1.32, with 12 it was 1.31, with 36 it is 1.11."
    ),
    ("patching", "layer_conductance: 90 places", "SmolLM2-135M", "first / attrfn"): (
        "how fast an activation moves is a forward derivative up to it: of the first block that is one layer, of all "
        "90 places 30. Beside the last block alone all 90 take 1.2 times as long in processor time; by differences, "
        "which ask for no velocity, 1.1 times as long as the first."
    ),
    ("patching", "layer_conductance, derivative=difference: 90 places", "SmolLM2-135M", "first / attrfn"): (
        "at two steps; measured before a pass that read the places once more was left out. Since then, in eight rounds "
        "by themselves, 1.02 (all 90 take 0.98 times as long)."
    ),
    ("patching", "internal_influence: 90 places", "SmolLM2-135M", "first / attrfn"): (
        "at two steps; measured before a pass that read the places once more was left out. Since then, in eight rounds "
        "by themselves, 0.93 (all 90 take 1.07 times as long; 1.33 before)."
    ),
}
