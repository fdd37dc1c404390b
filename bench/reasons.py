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
    ("plain", "deconvolution, batch 16", "ResNet-18", CAPTUM): (
        "the rounds differ by more; 17 ReLUs are functions of our own in place of torch's, as in the loop by hand."
    ),
    ("plain", "guided backprop, batch 16", "ResNet-18", FLOOR): (
        "as deconvolution; the middle half of the rounds is on both sides of the bar."
    ),
    ("plain", "deconvolution, batch 16", "ResNet-18", FLOOR): (
        "the middle half of the rounds is on both sides of the bar, and an earlier run had 1.05. A ReLU of ours "
        "passes a function mode, which calls an autograd function; the one of the loop by hand is that function."
    ),
    ("plain", "guided backprop, batch 16", "ResNet-18", CAPTUM): (
        "the rounds differ by more; 17 ReLUs are functions of our own in place of torch's, as in the loop by hand."
    ),
    ("deep_lift", "DeepLIFT SHAP, batch 2, 16 references", "ResNet-18", CAPTUM): (
        "64 % of the time are convolutions; the slopes of ReLUs are 14 %. Keeping where the references' maxima "
        "are saved 3 %; writing slopes in place nothing."
    ),
    ("overhead", "saliency, batch 1", "MLP", FLOOR): (
        "on one thread it is 1.5. Beside the pass: what modules hold is looked at and put back, x is copied (a "
        "model may write over it), the output and the attribution are looked at for numbers that are not finite. "
        "Was 2.3 before passes into which nothing looks ran without a function mode."
    ),
    ("cost", "DeepLIFT, batch 4, in gradients", "ViT", FLOOR): (
        "as BERT. Under load on one thread it was 4.9 before norms and attention had a rule in one piece, and 2.9 to "
        "3.4 since."
    ),
    **dict.fromkeys(
        [("cost", "DeepLIFT, batch 4, in gradients", f"BERT, {how}", FLOOR) for how in ("eager", "sdpa")],
        "two forward passes and one backward pass are half of the time; of 143 ms on one thread (sdpa) the rules of "
        "attention were 36, of GELU 26 (17 since), of norms 8: many small operations, a softmax some eighty.",
    ),
    ("cost", "DeepLIFT, batch 4, in gradients", "Llama", FLOOR): (
        "on one thread it is 2.7 to 3.0 (under load); see BERT."
    ),
    ("cost", "DeepLIFT, batch 64, in gradients", "LSTMCell, 60 steps", FLOOR): (
        "the model takes half a millisecond a step. It was 9.9 before the gates were one operation; now 3,808 "
        "operations beside saliency's 1,693, and two passes whose every operation goes through two function modes. "
        "Without the outer of these it is 3.5, but exported programs were wrong so."
    ),
    **dict.fromkeys(
        [
            ("cost", f"{of}: a method of an object with 100,000 records", "MLP", FLOOR)
            for of in ("saliency", "IG, 50 steps in a loop")
        ],
        "records are compared at their ends, and their number, before and after each pass.",
    ),
    ("cost", "infidelity, 20 draws, batch 2", "ResNet-18", CAPTUM): (
        "three passes beside Captum's two: at x, of 13 draws, of 7."
    ),
    ("cost", "layer conductance, forward, 20 points", "ViT", CAPTUM): (
        "a forward derivative through half of the model at each point, which Captum, by differences, does not take."
    ),
    ("cost", "layer conductance, difference, 20 points", "ViT", CAPTUM): (
        "under vmap each linear map is a product and a sum apart: 377 of 750 ms are products, where Captum's take 289 "
        "of 477, in a profile. Folded it is 0.85."
    ),
    ("cost", "layer conductance, difference, 20 points", "ResNet-18", CAPTUM): (
        "one pass of x alone tells how often the layer runs: 22 of a batch in place of 21."
    ),
    ("overhead", "saliency, batch 1", "MLP", CAPTUM): (
        "see the loop by hand. Captum looks at none of these, and leaves what a model writes."
    ),
    ("ablation", "input ablation, 49 patches, batch 2", "ResNet-18", "captum, its best / attrfn"): (
        "measured when a chunk had 15 masks, whose memory was asked of the system at each operation. Since a tensor's "
        "size is bounded it has 13: 0.99 on one core, in two rounds under load; the loop by hand is no further ahead."
    ),
    ("ablation", "occlusion, 49 windows, batch 2", "ResNet-18", "captum, its best / attrfn"): (
        "as input ablation, of whose passes it is made."
    ),
    **dict.fromkeys(
        [
            ("ablation", "occlusion, 49 windows, batch 1", "digits CNN", ratio)
            for ratio in (CAPTUM, "captum, its best / attrfn")
        ],
        "the bare pass of 50 rows is half of it on one thread (8.7 of 17.8 ms); of a profile the model is 63 %, and "
        "the rest many small things: masks, what the model holds, what the passes hold. Measured when the output at x "
        "had a pass of its own; without it a network of one layer takes 0.70 of the time, this one 0.91 to 0.98.",
    ),
    ("curves", "deletion and insertion, 100 steps, 16 images", "digits CNN", FLOOR): (
        "measured when 96 steps of 16 images were one batch, whose tensors were so large that their memory was asked "
        "of the system at each operation. Since a tensor's size is bounded, 0.84 on one core, three rounds under load."
    ),
    ("curves", "deletion and insertion, 100 steps, 16 images", "ResNet-18, 56 pixels", FLOOR): (
        "the rounds differ by more: 1.10 to 1.18."
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
