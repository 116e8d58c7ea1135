/** Tests are compiled by tsc first, so jest transforms nothing: the same files run here and in the test VM. */
module.exports = {
  roots: ['<rootDir>/dist/test'],
  testMatch: ['**/*.test.js'],
  transform: {},
  testEnvironment: 'node',
  testTimeout: 120_000,
  haste: { enableSymlinks: false },
  modulePathIgnorePatterns: ['<rootDir>/node_modules'],
};
