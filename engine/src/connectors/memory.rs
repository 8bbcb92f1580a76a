//! Tables in the memory of the process, for tests: `'connector' = 'memory'`.

/// All memory tables of one process or test, by name.
#[derive(Debug, Clone, Default)]
pub struct Hub {}
