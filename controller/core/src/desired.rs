//! What every switch should hold: a plain function of intent, topology and reports.

pub(crate) mod fabric;
mod meters;
pub(crate) mod rules;
mod slices;
mod ways;

pub(crate) use slices::slices;
