//! PersistentVolumes and their claims: binding, provisioning, reclaiming and protection.

mod binder;
mod matching;
mod plan;
mod protection;
mod provisioner;
#[cfg(test)]
mod tests;

pub(crate) use binder::start as start_binder;
pub(crate) use matching::{class_of_claim, delays_binding, is_bound, volume_fits_node};
pub(crate) use protection::{claims_of, start as start_protection};

/// Set on a claim once both sides of the binding are written.
pub(crate) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Set on the side that a user had not tied to the other.
pub(crate) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The provisioner that made a volume, and that deletes it.
pub(crate) const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The provisioner a claim waits for.
pub(crate) const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
pub(crate) const BETA_STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// The node that the scheduler chose for the first consumer of a claim.
pub(crate) const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
pub(crate) const IS_DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
