//! The dataflow: what turns a stream plan into running work.
//!
//! Reading order: which worker owns a key ([`key_group`]), keys as dense numbers ([`groups`]), and what is
//! kept for each of them ([`aggregates`]).

pub mod key_group;

pub mod groups;

pub mod aggregates;
