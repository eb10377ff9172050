// Package data turns a user's files into the packed batches that training
// consumes.
//
// The way of a row:
//
//	file  --Reader-->  Record        one JSON object, or one text document
//	      --Convert->  Row           one normalized form for every row format
//	      --As------>  Row           what the objective needs (a chat with an
//	                                 answer, a prompt, a pair, a ranking, a
//	                                 labelled answer)
//	      --Encoder->  ids, mask     the tokens, and which of them are trained on
//	      --Load---->  Dataset       all rows, encoded, in flat blocks
//	      --Loader-->  Step          packed micro-batches of one optimizer step
//
// Files are JSON (a list of objects, read element by element), JSONL, CSV,
// Parquet (package data/parquet), Arrow (package data/arrow) or plain text, the
// others than Parquet packed with gzip or zstd or not; what a file is, is decided
// by its content, and by its name only where the content leaves it open. A folder
// stands for the data files in it (see expandFiles). None is ever held whole. Row
// formats (Format) are detected from the first rows and can be named.
//
// Tables are read as the JSON that such files are made from, one object a row, so
// that every format is one whatever the container.
//
// Nothing is lost silently: every row that isn't trained on is counted in Stats
// under a Reason, with the places of the first ones. Rows that are mistakes (a
// missing field, a wrong type) end the load unless Options.BadRows says "skip".
//
// Packing follows the padding-free form that attention kernels with cumulative
// sequence lengths take: the sequences of a micro-batch lie one behind the
// other in one flat row, Starts holds where each begins, positions restart at
// 0, and no target crosses a start. The answers of a ranking are sequences of
// their own, but lie in one micro-batch: Batch.Groups says where each ranking's
// are.
//
// Order depends on the seed alone: every shuffle is a stream of
// package rng, chosen by seed, source and pass. A small State restores a Loader
// so that the very same steps follow.
package data
