#!/usr/bin/env python3
"""Asks a running server with TensorFlow Serving's own client.

usage: check_serving.py GRPC_ADDRESS REST_ADDRESS MODEL_NAME IMAGES LABELS [--minimum 0.5]

Predicts test images over gRPC (float_val and tensor_content, several shapes) and REST and compares
them with each other; reads metadata and status; checks the codes of errors. Exit code 0 if all is
well; the last line is a summary. Needs tensorflow-serving-api (with --no-deps), tensorflow(-cpu)
and grpcio.
"""
import argparse
import gzip
import json
import os
import sys
import urllib.error
import urllib.request

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

problems = []


def check(condition, text):
    if not condition:
        problems.append(text)
        print("PROBLEM", text)


def read_idx(path, offset):
    import numpy as np

    with open(path, "rb") as file:
        data = file.read()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    return np.frombuffer(data, np.uint8, offset=offset)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("grpc_address")
    parser.add_argument("rest_address")
    parser.add_argument("model_name")
    parser.add_argument("images")
    parser.add_argument("labels")
    parser.add_argument("--minimum", type=float, default=0.5, help="share of digits told right")
    args = parser.parse_args()

    import grpc
    import numpy as np
    import tensorflow as tf
    from tensorflow_serving.apis import (
        classification_pb2,
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    count = 100
    images = read_idx(args.images, 16)[: count * 784].reshape(count, 784).astype(np.float32) / 255
    labels = read_idx(args.labels, 8)[:count]
    channel = grpc.insecure_channel(args.grpc_address)
    stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
    models = model_service_pb2_grpc.ModelServiceStub(channel)

    def request(array, name=args.model_name, signature="serving_default"):
        message = predict_pb2.PredictRequest()
        message.model_spec.name = name
        message.model_spec.signature_name = signature
        message.inputs["x"].CopyFrom(tf.make_tensor_proto(array, shape=array.shape))
        return message

    def fails(code, call, what):
        try:
            call()
            check(False, f"{what}: no error")
        except grpc.RpcError as error:
            check(error.code() == code, f"{what}: {error.code()} {error.details()}")
            print(f"{what}: {error.code().name} {error.details()}")

    # As the tutorial's web page asks: one image of 784 numbers in float_val.
    single = predict_pb2.PredictRequest()
    single.model_spec.name = args.model_name
    single.model_spec.signature_name = "serving_default"
    single.inputs["x"].dtype = 1
    single.inputs["x"].tensor_shape.dim.add(size=1)
    single.inputs["x"].tensor_shape.dim.add(size=784)
    single.inputs["x"].float_val.extend(images[0].tolist())
    first = stub.Predict(single, 10)
    check(len(first.outputs["classes"].int_val) == 1, "classes has no int_val")
    check(len(first.outputs["predictions"].float_val) == 10, "predictions has no float_val")
    version = first.model_spec.version.value

    whole = stub.Predict(request(images), 30)
    scores = tf.make_ndarray(whole.outputs["predictions"])
    classes = tf.make_ndarray(whole.outputs["classes"])
    check(scores.shape == (count, 10) and classes.shape == (count,), f"shapes {scores.shape} {classes.shape}")
    check(classes.dtype == np.uint8, f"classes are {classes.dtype}")
    check((scores.argmax(1) == classes).all(), "classes are not the best scores")
    right = float((classes == labels).mean())
    check(right >= args.minimum, f"only {right:.0%} of the digits are right")
    for shape in ([count, 28, 28], [count, 28, 28, 1]):
        again = tf.make_ndarray(stub.Predict(request(images.reshape(shape)), 30).outputs["predictions"])
        check(np.abs(again - scores).max() < 1e-5, f"shape {shape} answers differently")
    one = np.array(first.outputs["predictions"].float_val)
    check(np.abs(one - scores[0]).max() < 1e-5, "one image alone answers differently")
    named = tf.make_ndarray(stub.Predict(request(images, signature="classes"), 30).outputs["classes"])
    check((named == classes).all(), "signature 'classes' answers differently")

    metadata_request = get_model_metadata_pb2.GetModelMetadataRequest()
    metadata_request.model_spec.name = args.model_name
    metadata_request.metadata_field.append("signature_def")
    metadata = stub.GetModelMetadata(metadata_request, 10)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    check(metadata.metadata["signature_def"].Unpack(signatures), "metadata does not unpack")
    check(sorted(signatures.signature_def) == ["classes", "serving_default"], f"signatures {sorted(signatures.signature_def)}")
    check(signatures.signature_def["serving_default"].inputs["x"].dtype == 1, "x is not DT_FLOAT")
    status_request = get_model_status_pb2.GetModelStatusRequest()
    status_request.model_spec.name = args.model_name
    status = models.GetModelStatus(status_request, 10)
    check(status.model_version_status[0].state == 30, f"status {status}")
    check(status.model_version_status[0].version == version, "status names another version")

    code = grpc.StatusCode
    fails(code.NOT_FOUND, lambda: stub.Predict(request(images[:1], name="no-such-model"), 10), "unknown model")
    fails(code.INVALID_ARGUMENT, lambda: stub.Predict(request(images[:1, :700]), 10), "wrong shape")
    fails(code.FAILED_PRECONDITION, lambda: stub.Predict(request(images[:1], signature="x"), 10), "unknown signature")
    classify = classification_pb2.ClassificationRequest()
    classify.model_spec.name = args.model_name
    fails(code.UNIMPLEMENTED, lambda: stub.Classify(classify, 10), "Classify")

    def rest(path, body=None):
        data = json.dumps(body).encode() if body is not None else None
        url = f"http://{args.rest_address}/v1/models/{path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data), timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    code, answer = rest(f"{args.model_name}:predict", {"instances": images.tolist()})
    check(code == 200, f"REST predict: {code} {answer}")
    over_rest = np.array([row["predictions"] for row in answer["predictions"]], np.float32)
    check(np.abs(over_rest - scores).max() < 1e-6, "REST answers differently")
    code, answer = rest(args.model_name)
    check(code == 200 and answer["model_version_status"][0]["state"] == "AVAILABLE", f"REST status: {code} {answer}")
    code, answer = rest("no-such-model:predict", {"instances": [[0.0] * 784]})
    check(code == 404 and "error" in answer, f"REST unknown model: {code} {answer}")

    print(f"{'FAILED' if problems else 'ok'}: tensorflow-serving-api against version {version}, "
          f"{right:.0%} of {count} digits right, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
