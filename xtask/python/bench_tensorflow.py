#!/usr/bin/env python3
"""The tutorial's training and serving in TensorFlow, for measuring it beside ours.

usage: bench_tensorflow.py train DATA_DIR EXPORT_DIR STEPS     the whole program, as the tutorial's
       bench_tensorflow.py predict MODEL_DIR COUNT             median of one signature call, batch 1
"""
import gzip
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import tensorflow as tf

BATCH = 100
LEARNING_RATE = 0.01


def images(folder, name):
    with gzip.open(os.path.join(folder, f"{name}-images-idx3-ubyte.gz")) as file:
        return np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 28, 28).astype(np.float32) / 255


def labels(folder, name):
    with gzip.open(os.path.join(folder, f"{name}-labels-idx1-ubyte.gz")) as file:
        return np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int32)


class Network(tf.Module):
    def __init__(self):
        initial = tf.keras.initializers.GlorotUniform(seed=0)
        shapes = [(5, 5, 1, 32), (5, 5, 32, 64), (3136, 1024), (1024, 10)]
        self.weights = [tf.Variable(initial(shape)) for shape in shapes]
        self.biases = [tf.Variable(tf.zeros(shape[-1])) for shape in shapes]

    def logits(self, x, keep):
        h = tf.reshape(x, [-1, 28, 28, 1])
        for weight, bias in zip(self.weights[:2], self.biases[:2]):
            h = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(h, weight, 1, "SAME"), bias))
            h = tf.nn.max_pool2d(h, 2, 2, "SAME")
        h = tf.nn.relu(tf.matmul(tf.reshape(h, [-1, 3136]), self.weights[2]) + self.biases[2])
        if keep < 1:
            h = tf.nn.dropout(h, 1 - keep)
        return tf.matmul(h, self.weights[3]) + self.biases[3]

    @tf.function
    def step(self, x, y):
        variables = self.weights + self.biases
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, self.logits(x, 0.5)))
        for variable, gradient in zip(variables, tape.gradient(loss, variables)):
            variable.assign_sub(LEARNING_RATE * gradient)
        return loss

    @tf.function(input_signature=[tf.TensorSpec([None, 28, 28], tf.float32, name="x")])
    def serve(self, x):
        predictions = tf.nn.softmax(self.logits(x, 1))
        return {"predictions": predictions, "classes": tf.cast(tf.argmax(predictions, 1), tf.uint8)}


def train(folder, export, steps):
    x, y = images(folder, "train"), labels(folder, "train")
    test_x, test_y = images(folder, "t10k"), labels(folder, "t10k")
    network, order = Network(), np.random.default_rng(0)
    rows = np.empty(0, np.int64)
    for at in range(steps):
        if len(rows) < BATCH:
            rows = order.permutation(len(x))
        batch, rows = rows[:BATCH], rows[BATCH:]
        loss = float(network.step(tf.constant(x[batch]), tf.constant(y[batch])))
        if (at + 1) % 100 == 0:
            print(f"step {at + 1}: loss {loss:.4f}")
    right = [network.serve(tf.constant(test_x[i : i + 1000]))["classes"].numpy() for i in range(0, len(test_x), 1000)]
    print(f"test accuracy {(np.concatenate(right) == test_y).mean():.4f}")
    tf.saved_model.save(network, os.path.join(export, str(int(time.time()))), signatures={"serving_default": network.serve})


def predict(model, count):
    signature = tf.saved_model.load(model).signatures["serving_default"]
    x = tf.constant(np.random.default_rng(0).random((1, 28, 28), np.float32))
    times = []
    for _ in range(count):
        began = time.perf_counter()
        signature(x=x)["predictions"].numpy()
        times.append(time.perf_counter() - began)
    times = sorted(times[count // 10 :])
    print(f"TensorFlow signature batch 1: p50 {times[len(times) // 2] * 1e6:.0f} us")


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        predict(sys.argv[2], int(sys.argv[3]))
