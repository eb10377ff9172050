package cuda

import "ringtail/tensor"

// firstKernels are those of a training step of a LLaMA or GPT-2 in its usual form: heads
// of 64 or 128 columns, rows of whole 16 bytes, float32 gradients and master weights. What
// else a step needs, such as a norm's kernel for its width, is compiled when it is
// launched, in some hundredths of a second.
func (d *Device) firstKernels() []string {
	float, wide := suffix(d.opt.Float), suffix(d.opt.Float.Wide())
	var names []string
	add := func(family string, list ...string) {
		for _, name := range list {
			names = append(names, family+"."+name)
		}
	}
	switch {
	case d.opt.Float == tensor.F32:
		add("attention_f32", "forward_f32", "delta_f32", "backward_keys_f32", "backward_queries_f32")
	case d.dnn.handle == 0 || !d.opt.Fast: // deterministic gradients of packed rows aren't cuDNN's
		add("attention", "forward_64_"+float, "delta_fused_"+float, "backward_64_"+float)
		add("attention", "forward_128_"+float, "delta_"+float, "backward_keys_128_"+float, "backward_queries_128_"+float)
	}
	add("loss", "softmax_"+wide+"_"+float, "sum_loss")
	if float == wide {
		add("optimizer", "adamw_f32_f32_f32")
	} else {
		add("optimizer", "adamw_master_"+float+"_f32_f32")
	}
	add("optimizer", "sum_squares_f32", "add_partials", "clip_factor")
	add("embedding", "embedding_"+float+"_x8", "sort_tokens", "embedding_runs_f32_x8", "embedding_backward_f32_"+float+"_x8")
	add("rope", "rope_"+float+"_x8")
	for _, op := range []string{"glu", "glu_backward", "activate", "activate_backward", "add", "sum_rows"} {
		add("elementwise", op+"_"+float+"_x8")
	}
	add("elementwise", "add_row_partials_f32", "zero_16", "zero_8")
	return names
}
