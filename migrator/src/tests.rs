//! Whole migrations over stores and states in memory that die at any call, and what must hold whenever they do.

mod crashing;
mod fakes;
mod moving;
