#!/usr/bin/env python3
"""Loads an exported model in real TensorFlow, with both loaders, and compares predictions.

usage: check_saved_model.py MODEL_DIR IMAGES PREDICTIONS [--tolerance 1e-5]

MODEL_DIR    the exported version's directory (with saved_model.pb)
IMAGES       t10k-images-idx3-ubyte, gzipped or not
PREDICTIONS  ten little-endian floats for each of the first images, as our own executor answers
             (example `predict` of this crate)

Exit code 0 if everything agrees; the last line is a summary. Needs tensorflow(-cpu) and numpy.
"""
import argparse
import gzip
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir")
    parser.add_argument("images")
    parser.add_argument("predictions")
    parser.add_argument("--tolerance", type=float, default=1e-5)
    args = parser.parse_args()

    import numpy as np
    import tensorflow as tf

    with open(args.images, "rb") as file:
        data = file.read()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    ours = np.fromfile(args.predictions, "<f4").reshape(-1, 10)
    count = len(ours)
    assert count > 0, "the predictions are empty"
    images = np.frombuffer(data, np.uint8, offset=16)[: count * 784].reshape(count, 28, 28)
    # Divided as our own code does it.
    images = images.astype(np.float32) * np.float32(1.0 / 255.0)

    problems = []

    def compare(loader, scores, classes):
        difference = float(np.abs(scores - ours).max())
        print(f"{loader}: largest difference {difference:.2e}")
        if scores.shape != ours.shape or not difference <= args.tolerance:
            problems.append(f"{loader}: scores differ by {difference:.2e}")
        if classes.dtype != np.uint8 or classes.shape != (count,):
            problems.append(f"{loader}: classes are {classes.dtype} {classes.shape}")
        elif not (classes == ours.argmax(1)).all():
            problems.append(f"{loader}: {int((classes != ours.argmax(1)).sum())} classes differ")

    loaded = tf.saved_model.load(args.model_dir)
    names = sorted(loaded.signatures)
    if names != ["classes", "serving_default"]:
        problems.append(f"signatures are {names}")
    for name in names:
        signature = loaded.signatures[name]
        inputs = signature.structured_input_signature[1]
        if inputs["x"].dtype != tf.float32 or inputs["x"].shape.as_list() != [None, 28, 28]:
            problems.append(f"{name}: input is {inputs['x']}")
        answer = signature(x=tf.constant(images))
        compare(f"tf.saved_model.load {name}", answer["predictions"].numpy(), answer["classes"].numpy())

    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], args.model_dir)
        for name, signature in sorted(meta.signature_def.items()):
            if signature.method_name != "tensorflow/serving/predict":
                problems.append(f"{name}: method name {signature.method_name!r}")
            scores, classes = session.run(
                [signature.outputs["predictions"].name, signature.outputs["classes"].name],
                {signature.inputs["x"].name: images},
            )
            compare(f"tf.compat.v1.saved_model.load {name}", scores, classes)

    for problem in problems:
        print("PROBLEM", problem)
    print(f"{'FAILED' if problems else 'ok'}: TensorFlow {tf.__version__}, {count} images, "
          f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
