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
        "beside the pass what modules hold is looked at, x is copied (a model may write over it), the output and the "
        "attribution are looked at for numbers that are not finite: 0.1 ms, in some 160 calls of Python. In five runs "
        "it was 1.42 to 1.52; 1.6 before the engine of autograd was asked itself."
    ),
    **dict.fromkeys(
        [
            ("overhead", f"{of}, batch 1", "MLP", CAPTUM)
            for of in ("saliency", "input x gradient", "guided backprop", "deconvolution")
        ],
        "the middle half of the rounds is on both sides of the bar; it was met in four runs of five.",
    ),
    ("overhead", "DeepLIFT, batch 1", "MLP", CAPTUM): (
        "every operation passes a function mode in two passes, and each ReLU is an autograd function of ours whose "
        "slope takes seven small operations. Was 0.41 before a model under rules was no pass within a pass, then 0.69."
    ),
    **dict.fromkeys(
        [("overhead", f"{of}, batch 1", "MLP", CAPTUM) for of in ("layer gradient x activation", "neuron gradient")],
        "runs differ by 5 %: in four the first was at 0.98 to 1.06, the second at 0.94 to 0.99. A tap at the layer, "
        "what holds it, and a copy of what is there. Was 0.70 when a tapped pass had a function mode.",
    ),
    ("overhead", "gradient SHAP, 5 samples, batch 1", "MLP", CAPTUM): (
        "a vmap of its five draws takes 0.6 ms more than one batch of them, which is at 0.96 with a chunk_size; what "
        "its passes hold is counted for 0.1 ms."
    ),
    ("cost", "layer conductance, difference, 20 points", "ViT", CAPTUM): (
        "21 points are one chunk, as they are one batch of Captum's. By itself it is at 1.03, in sixteen rounds in "
        "turn at 0.96, behind the other rows of this script at 0.81."
    ),
    ("cost", "infidelity, 20 draws, batch 2", "ResNet-18", CAPTUM): (
        "runs differ: 0.95 in the one before, of the same code for it; 20 draws are one chunk in both."
    ),
    ("cost", "layer conductance, difference, 20 points", "ResNet-18", CAPTUM): (
        "the rounds differ by more; in six by themselves the medians are at 1.03. It was at 1.05 in a run before."
    ),
    ("ablation", "input ablation, 49 patches, batch 2", "ResNet-18", "captum, its best / attrfn"): (
        "83 % of the time are convolutions, as many in all three. Processes differ by more: of one of twelve rounds in "
        "turn it is at 0.99, of six others at 0.76 to 1.12, and the loop by hand at 0.97."
    ),
    ("ablation", "occlusion, 49 windows, batch 2", "ResNet-18", "captum, its best / attrfn"): (
        "as of input ablation: the same convolutions. It was at 1.03 and 1.09 in two runs before."
    ),
    ("curves", "deletion and insertion, 100 steps, 16 images", "digits CNN", FLOOR): (
        "processes differ: 0.98, 1.04, 1.17 and 1.37 of the same code, by which memory the allocator has at hand."
    ),
    ("shapley", "Shapley values, all coalitions of 16", "digits CNN", FLOOR): (
        "the rounds are on both sides of the bar; 1.06 in a run an hour before."
    ),
    ("importing", "import, after torch", "", "milliseconds of import attrfn"): (
        "62 ms are its own; the rest is a collection of all of torch's objects by Python, which comes due while it is "
        "imported. It was 21 ms when the package was a third of what it is."
    ),
    ("layer_integrated", "layer IG, 50 steps, layer3", "ResNet-18", CAPTUM): (
        "the ratio moves with the machine: 2.96 and 3.1 in two runs before."
    ),
    ("shap", "layer DeepLIFT SHAP, layer3, 16 references", "ResNet-18", CAPTUM): (
        "what is up to layer3 is four fifths of a pass, and has to run for each reference; the middle half of the "
        "rounds is at 1.85 to 1.99."
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
