//! The MNIST database: built into the program, or read from a directory of IDX files.

use std::path::Path;
use std::sync::LazyLock;

use crate::idx::{self, Error, IMAGES_MAGIC, LABELS_MAGIC};

/// Pixels along one side of an image.
pub const SIDE: usize = 28;
/// Pixels of an image.
pub const PIXELS: usize = SIDE * SIDE;
/// The digits.
pub const CLASSES: usize = 10;

static TRAIN_IMAGES: &[u8] = include_bytes!("../mnist/train-images-idx3-ubyte.gz");
static TRAIN_LABELS: &[u8] = include_bytes!("../mnist/train-labels-idx1-ubyte.gz");
static TEST_IMAGES: &[u8] = include_bytes!("../mnist/t10k-images-idx3-ubyte.gz");
static TEST_LABELS: &[u8] = include_bytes!("../mnist/t10k-labels-idx1-ubyte.gz");

/// Which half of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// 60,000 images to learn from.
    Train,
    /// 10,000 images to judge with.
    Test,
}

impl Part {
    /// The names of the two files, without `.gz`.
    pub fn file_names(self) -> (&'static str, &'static str) {
        match self {
            Self::Train => ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
            Self::Test => ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
        }
    }
}

/// Images with their labels. Pixels are grey values 0..=255, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

/// The built-in test set, decoded when first asked for and then kept.
pub fn test_set() -> &'static Dataset {
    static TEST: LazyLock<Dataset> = LazyLock::new(|| Dataset::embedded(Part::Test));
    &TEST
}

impl Dataset {
    /// Decodes a part of the built-in database.
    pub fn embedded(part: Part) -> Self {
        let (images, labels) = match part {
            Part::Train => (TRAIN_IMAGES, TRAIN_LABELS),
            Part::Test => (TEST_IMAGES, TEST_LABELS),
        };
        let (image_name, label_name) = part.file_names();
        idx::decode(image_name, images, IMAGES_MAGIC)
            .and_then(|images| {
                Self::new(
                    image_name,
                    images,
                    label_name,
                    idx::decode(label_name, labels, LABELS_MAGIC)?,
                )
            })
            .expect("invariant: a test decodes the built-in files")
    }

    /// Reads a part from the files of a directory, gzipped or not.
    pub fn from_dir(dir: &Path, part: Part) -> Result<Self, Error> {
        let (image_name, label_name) = part.file_names();
        let images = idx::read_file(dir, image_name, IMAGES_MAGIC)?;
        let labels = idx::read_file(dir, label_name, LABELS_MAGIC)?;
        let name = |file: &str| dir.join(file).display().to_string();
        Self::new(&name(image_name), images, &name(label_name), labels)
    }

    fn new(
        image_name: &str,
        images: idx::Array,
        label_name: &str,
        labels: idx::Array,
    ) -> Result<Self, Error> {
        if images.sizes[1..] != [SIDE, SIDE] {
            return Err(idx::corrupt(
                image_name,
                format!("images of {SIDE} x {SIDE}"),
                format!("{} x {}", images.sizes[1], images.sizes[2]),
            ));
        }
        if images.sizes[0] == 0 {
            return Err(idx::corrupt(image_name, "at least one image", "none"));
        }
        if labels.sizes[0] != images.sizes[0] {
            return Err(idx::corrupt(
                label_name,
                format!("{} labels, one for each image", images.sizes[0]),
                labels.sizes[0].to_string(),
            ));
        }
        if let Some(at) = labels
            .bytes
            .iter()
            .position(|&label| label as usize >= CLASSES)
        {
            return Err(idx::corrupt(
                label_name,
                "labels 0 to 9",
                format!("{} at position {at}", labels.bytes[at]),
            ));
        }
        Ok(Self {
            pixels: images.bytes,
            labels: labels.bytes,
        })
    }

    /// How many images there are; never zero.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image; never so.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The grey values of an image.
    ///
    /// # Panics
    /// If there is no image `index`.
    pub fn pixels(&self, index: usize) -> &[u8] {
        &self.pixels[index * PIXELS..(index + 1) * PIXELS]
    }

    /// The digit that an image shows.
    ///
    /// # Panics
    /// If there is no image `index`.
    pub fn label(&self, index: usize) -> u8 {
        self.labels[index]
    }

    /// The image as the networks want it: numbers from 0 to 1.
    pub fn write_floats(&self, index: usize, floats: &mut [f32]) {
        to_floats(self.pixels(index), floats);
    }
}

/// Grey values 0..=255 as numbers from 0 to 1.
pub fn to_floats(pixels: &[u8], floats: &mut [f32]) {
    for (float, &pixel) in floats.iter_mut().zip(pixels) {
        *float = f32::from(pixel) * (1.0 / 255.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_database_is_complete_and_known() {
        let train = Dataset::embedded(Part::Train);
        assert_eq!((train.len(), test_set().len()), (60_000, 10_000));
        let first: Vec<u8> = (0..10).map(|i| train.label(i)).collect();
        assert_eq!(first, [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
        assert_eq!(
            (0..5).map(|i| test_set().label(i)).collect::<Vec<_>>(),
            [7, 2, 1, 0, 4]
        );
        let ink: u64 = test_set().pixels(0).iter().map(|&p| u64::from(p)).sum();
        assert!(ink > 10_000, "{ink}");
    }

    #[test]
    fn a_directory_that_disagrees_with_itself_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let (image_name, label_name) = Part::Test.file_names();
        let mut images = IMAGES_MAGIC.to_be_bytes().to_vec();
        images.extend([0, 0, 0, 2, 0, 0, 0, 28, 0, 0, 0, 28]);
        images.extend(vec![9; 2 * PIXELS]);
        let write_labels = |labels: &[u8]| {
            let mut file = LABELS_MAGIC.to_be_bytes().to_vec();
            file.extend((labels.len() as u32).to_be_bytes());
            file.extend(labels);
            std::fs::write(dir.path().join(label_name), file).unwrap();
        };
        std::fs::write(dir.path().join(image_name), &images).unwrap();

        write_labels(&[1]);
        let text = Dataset::from_dir(dir.path(), Part::Test)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains(label_name) && text.contains("expected 2 labels"),
            "{text}"
        );
        write_labels(&[1, 12]);
        let text = Dataset::from_dir(dir.path(), Part::Test)
            .unwrap_err()
            .to_string();
        assert!(text.contains("found 12 at position 1"), "{text}");
        write_labels(&[1, 2]);
        assert_eq!(Dataset::from_dir(dir.path(), Part::Test).unwrap().len(), 2);
        images[11] = 27;
        images.truncate(16 + 2 * 27 * 28);
        std::fs::write(dir.path().join(image_name), &images).unwrap();
        let text = Dataset::from_dir(dir.path(), Part::Test)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("expected images of 28 x 28, found 27 x 28"),
            "{text}"
        );
    }
}
