//! The core against a made-up network: see [`lab::Lab`].

mod assure;
mod drain;
mod failures;
mod forward;
mod history;
mod hooks;
mod intent;
mod joining;
mod lab;
mod lifecycle;
mod maxima;
mod moves;
mod net;
mod packets;
mod placement;
mod properties;
mod rules;
mod scale;
mod sessions;
mod sim;
