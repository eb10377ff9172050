package cuda

import "ringtail/tensor"

// table fills the device's table of operations.
func (d *Device) table() {
	d.ops = tensor.Ops{
		Zero:              d.zero,
		Copy:              d.copyTensor,
		Add:               d.add,
		Scale:             d.scale,
		Matmul:            d.matmul,
		SumRows:           d.sumRows,
		Embedding:         d.embedding,
		EmbeddingBackward: d.embeddingBackward,
		RMSNorm:           d.rmsNorm,
		RMSNormBackward:   d.rmsNormBackward,
		LayerNorm:         d.layerNorm,
		LayerNormBackward: d.layerNormBackward,
		HeadNorm:          d.headNorm,
		HeadNormBackward:  d.headNormBackward,
		RoPE:              d.rope,
		Attention:         d.attention,
		AttentionBackward: d.attentionBackward,
		CachedAttention:   d.cachedAttention,
		GLU:               d.glu,
		GLUBackward:       d.gluBackward,
		Activate:          d.activate,
		ActivateBackward:  d.activateBackward,
		SoftCap:           d.softCap,
		SoftCapBackward:   d.softCapBackward,
		Route:             d.route,
		RouteBackward:     d.routeBackward,
		GroupedMatmul:     d.groupedMatmul,
		GroupedOuter:      d.groupedOuter,
		Combine:           d.combine,
		CombineBackward:   d.combineBackward,
		RouterLoss:        d.routerLoss,
		CrossEntropy:      d.crossEntropy,
		LogProb:           d.logProb,
		LogProbBackward:   d.logProbBackward,
		SumSquares:        d.sumSquares,
		ClipFactor:        d.clipFactor,
		AdamW:             d.adamW,
		SumSquaresAll:     d.sumSquaresAll,
		AdamWAll:          d.adamWAll,
		Sample:            d.sample,
	}
}
