//! Checkpoints: the state of a run in one file, from which it can go on.
//!
//! A file is a magic word, the length of a JSON header, the header, the numbers, and the SHA-256
//! of all that. Anything else is corrupt and is not used.

use std::fs;
use std::path::{Path, PathBuf};

use model::network::{Kind, Network, Parameter};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::optimizer::Optimizer;

const MAGIC: &[u8; 8] = b"coracle2";
const KEPT: usize = 3;

/// Why a checkpoint could not be written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be written.
    #[error("write the checkpoint {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It cannot be read.
    #[error("read the checkpoint {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is of another training.
    #[error("the checkpoint {} is of {found}, but this run trains {wanted}; give another --tf-model-dir", path.display())]
    Other {
        /// The file.
        path: PathBuf,
        /// What it is of.
        found: String,
        /// What this run is.
        wanted: String,
    },
}

/// The state of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Checkpoint {
    pub(crate) step: u64,
    pub(crate) seed: u64,
    pub(crate) network: Network,
    pub(crate) memory: Vec<Vec<f32>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    step: u64,
    seed: u64,
    network: String,
    optimizer: String,
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Cnn => "CNN",
        Kind::Linear => "LINEAR",
    }
}

/// What `find` met besides a usable checkpoint.
pub(crate) type Skipped = Vec<(PathBuf, &'static str)>;

/// Writes a checkpoint and removes the oldest beyond the few that are kept.
pub(crate) fn save(
    dir: &Path,
    step: u64,
    seed: u64,
    network: &Network,
    optimizer: Optimizer,
    memory: &[Vec<f32>],
) -> Result<PathBuf, Error> {
    let path = dir.join(format!("checkpoint-{step}.bin"));
    let write = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    fs::create_dir_all(dir).map_err(write(dir))?;
    let header = Header {
        step,
        seed,
        network: name(network.kind).to_owned(),
        optimizer: optimizer.name().to_owned(),
    };
    let header = serde_json::to_vec(&header).expect("invariant: a header of plain fields encodes");
    let numbers = network
        .parameters
        .iter()
        .map(|parameter| &parameter.values)
        .chain(memory);
    let count: usize = numbers.clone().map(|values| 4 * values.len()).sum();
    let mut file = Vec::with_capacity(count + header.len() + 64);
    file.extend(MAGIC);
    file.extend((header.len() as u64).to_le_bytes());
    file.extend(header);
    for values in numbers {
        for value in values {
            file.extend(value.to_le_bytes());
        }
    }
    let digest = Sha256::digest(&file);
    file.extend(digest);
    stdx::fs::write_atomic(&path, &file, 0o644).map_err(write(&path))?;
    for (_, old) in list(dir)?.into_iter().rev().skip(KEPT) {
        // One too many does no harm; the next save tries again.
        drop(fs::remove_file(old));
    }
    Ok(path)
}

/// The newest checkpoint that is whole; corrupt ones are named and passed over.
pub(crate) fn find(
    dir: &Path,
    kind: Kind,
    optimizer: Optimizer,
) -> Result<(Option<Checkpoint>, Skipped), Error> {
    let mut skipped = Vec::new();
    for (_, path) in list(dir)?.into_iter().rev() {
        let file = match fs::read(&path) {
            Ok(file) => file,
            Err(source) => return Err(Error::Read { path, source }),
        };
        match decode(&file, &path, kind, optimizer)? {
            Ok(checkpoint) => return Ok((Some(checkpoint), skipped)),
            Err(reason) => skipped.push((path, reason)),
        }
    }
    Ok((None, skipped))
}

/// The checkpoints of a directory, oldest first.
fn list(dir: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let read = |source| Error::Read {
        path: dir.to_owned(),
        source,
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(read(source)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(read)?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|name| {
            name.strip_prefix("checkpoint-")?
                .strip_suffix(".bin")?
                .parse()
                .ok()
        });
        if let Some(step) = step {
            found.push((step, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// The outer error ends the run, the inner one passes this file over.
fn decode(
    file: &[u8],
    path: &Path,
    kind: Kind,
    optimizer: Optimizer,
) -> Result<Result<Checkpoint, &'static str>, Error> {
    let Some((content, digest)) = file.split_last_chunk::<32>() else {
        return Ok(Err("it is too short"));
    };
    if Sha256::digest(content).as_slice() != digest {
        return Ok(Err("its checksum is wrong"));
    }
    let parts = content.strip_prefix(MAGIC).and_then(|rest| {
        let (length, rest) = rest.split_first_chunk::<8>()?;
        let (header, numbers) = rest.split_at_checked(u64::from_le_bytes(*length) as usize)?;
        Some((serde_json::from_slice::<Header>(header).ok()?, numbers))
    });
    let Some((header, numbers)) = parts else {
        return Ok(Err("its header is unknown"));
    };
    let wanted = format!("{} with {}", name(kind), optimizer.name());
    let found = format!("{} with {}", header.network, header.optimizer);
    if found != wanted {
        return Err(Error::Other {
            path: path.to_owned(),
            found,
            wanted,
        });
    }
    let (numbers, rest) = numbers.as_chunks::<4>();
    let mut numbers = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let layout = kind.layout();
    let wanted: usize = layout
        .iter()
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum();
    if !rest.is_empty() || numbers.len() != wanted * (1 + optimizer.memory()) {
        return Ok(Err("it has another number of weights"));
    }
    let mut take = |count: usize| numbers.by_ref().take(count).collect::<Vec<f32>>();
    let parameters: Vec<Parameter> = layout
        .into_iter()
        .map(|(name, shape)| {
            let values = take(shape.iter().product());
            Parameter {
                name,
                shape,
                values,
            }
        })
        .collect();
    let memory = parameters
        .iter()
        .map(|parameter| take(parameter.values.len() * optimizer.memory()))
        .collect();
    let network = Network { kind, parameters };
    Ok(Ok(Checkpoint {
        step: header.step,
        seed: header.seed,
        network,
        memory,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(dir: &Path, step: u64) -> Checkpoint {
        let network = Network::initial(Kind::Linear, step);
        let memory: Vec<Vec<f32>> = network
            .parameters
            .iter()
            .map(|p| vec![step as f32; 2 * p.values.len()])
            .collect();
        save(dir, step, 7, &network, Optimizer::Adam, &memory).unwrap();
        Checkpoint {
            step,
            seed: 7,
            network,
            memory,
        }
    }

    #[test]
    fn the_newest_whole_checkpoint_is_found_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(
            find(dir, Kind::Linear, Optimizer::Adam).unwrap(),
            (None, Vec::new())
        );
        let kept: Vec<Checkpoint> = [9, 10, 20, 100].map(|step| keep(dir, step)).into();
        assert!(!dir.join("checkpoint-9.bin").exists());
        let (found, _) = find(dir, Kind::Linear, Optimizer::Adam).unwrap();
        assert_eq!(found.as_ref(), Some(&kept[3]));

        let newest = dir.join("checkpoint-100.bin");
        let mut file = fs::read(&newest).unwrap();
        file[200] ^= 1;
        fs::write(&newest, &file).unwrap();
        fs::write(dir.join("checkpoint-200.bin"), b"short").unwrap();
        let (found, skipped) = find(dir, Kind::Linear, Optimizer::Adam).unwrap();
        assert_eq!(found.as_ref(), Some(&kept[2]));
        let reasons: Vec<&str> = skipped.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(reasons, ["it is too short", "its checksum is wrong"]);
    }

    #[test]
    fn a_checkpoint_of_another_training_is_an_error_that_names_both() {
        let dir = tempfile::tempdir().unwrap();
        keep(dir.path(), 1);
        let text = find(dir.path(), Kind::Cnn, Optimizer::Sgd)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("LINEAR with adam") && text.contains("CNN with sgd"),
            "{text}"
        );
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "in the way").unwrap();
        let network = Network::initial(Kind::Linear, 1);
        let error = save(&file, 1, 1, &network, Optimizer::Sgd, &[]).unwrap_err();
        assert!(
            error.to_string().contains(&file.display().to_string()),
            "{error}"
        );
    }
}
