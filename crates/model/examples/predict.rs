//! Runs an exported model on the first test images and writes the ten scores of each as
//! little-endian floats: `predict MODEL_DIR COUNT FILE`. The peer test compares them with
//! TensorFlow's.

use std::error::Error;
use std::path::Path;

use model::mnist::{PIXELS, test_set};
use model::signature::DEFAULT_SIGNATURE;
use model::{SavedModel, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, count, file] = &args[..] else {
        return Err("usage: predict MODEL_DIR COUNT FILE".into());
    };
    let count = count.parse::<usize>()?.min(test_set().len());
    let model = SavedModel::read(Path::new(dir))?;
    let mut pixels = vec![0.0; count * PIXELS];
    for (index, image) in pixels.chunks_exact_mut(PIXELS).enumerate() {
        test_set().write_floats(index, image);
    }
    let x = Tensor::float(vec![count, PIXELS], pixels)?;
    let outputs = model.predict(DEFAULT_SIGNATURE, [("x".to_owned(), x)].into(), &[])?;
    let scores = outputs["predictions"]
        .as_floats()
        .ok_or("predictions are not floats")?;
    let bytes: Vec<u8> = scores
        .iter()
        .flat_map(|score| score.to_le_bytes())
        .collect();
    std::fs::write(file, bytes)?;
    Ok(())
}
